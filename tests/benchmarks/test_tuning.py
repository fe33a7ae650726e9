"""The tuning of a comparison: equal budgets, and runs that follow from the records."""

import collections
import dataclasses
import math

from benchmarks.comparison import families, naming, tuning

# As if no comparison had been made before.
FRESH = dataclasses.replace(families.FAMILIES["deep"], growths={})


def play(family, score, records=(), until=None):
    """Records of all runs, in the order in which they become pending."""
    records = list(records)
    while runs := tuning.pending("deep", "sgd", records, family):
        for run in runs:
            if until is not None and len(records) >= until:
                return records
            record = {**dataclasses.asdict(run), **dataclasses.asdict(run.point)}
            value = score(run)
            record |= {"score": value, "status": "diverged" if value is None else "finished"}
            records.append(record)
    return records


def closeness(rate, scale=1.0):
    """A score that is best at one rate and scale."""
    return lambda run: (
        -abs(math.log(run.point.rate / rate)) - abs(math.log(run.point.scale / scale))
    )


def test_every_method_has_the_same_budget():
    family = FRESH
    records = play(family, closeness(0.02, 1.1))
    counts = collections.Counter((r["normalization"], r["phase"]) for r in records)
    tuned = {counts[name, "tune"] for name in family.normalizations("sgd")}
    assert len(tuned) == 1
    assert tuned.pop() >= 16
    assert {counts[name, "refine"] for name in family.normalizations("sgd")} == {6}
    assert {counts[name, "test"] for name in family.normalizations("sgd")} == {5}
    methods = [name for name in family.normalizations("sgd") if counts[name, "default"]]
    # Frobenius normalization and four methods, with and without normalization of activations.
    assert len(methods) == 2 * 5
    assert {counts[name, "default"] for name in methods} == {5}
    assert len({tuning.key_of(r) for r in records}) == len(records)


def test_all_methods_share_rates_and_modes():
    family = FRESH
    runs = tuning.pending("deep", "sgd", [], family)
    rates = collections.defaultdict(set)
    for run in runs:
        rates[run.index].add(run.point.rate)
    assert all(len(found) == 1 for found in rates.values())
    low, high = family.rates["sgd"]
    assert all(low <= rate <= high for (rate,) in rates.values())
    # Even in the logarithm: one in each sixteenth.
    cells = {int(16 * math.log(rate / low) / math.log(high / low)) for (rate,) in rates.values()}
    assert len(cells) == 16
    modes = [run.point.mode for run in runs if run.normalization == "row_equilibration"]
    assert collections.Counter(modes) == dict.fromkeys(families.MODES, 4)
    late = {"none, scale matched", "layer, scale matched", *family.late_ones("sgd")}
    assert {run.normalization for run in runs} == set(family.normalizations("sgd")) - late
    for name in ("none", "layer"):
        points = [run.point for run in runs if run.normalization == name]
        assert {(point.scale, point.mode) for point in points} == {(1.0, None)}
    for name in ("none, scale tuned", "layer, scale tuned", "weight_normalization"):
        points = [run.point for run in runs if run.normalization == name]
        assert len({point.scale for point in points}) == 16
        assert {point.mode for point in points} == {None}


def test_a_winner_at_an_edge_grows_the_range_for_all():
    family = dataclasses.replace(FRESH, activations=())
    low, high = family.rates["sgd"]
    records = play(family, lambda run: run.point.rate)
    tuned = [r for r in records if r["phase"] == "tune"]
    for name in family.normalizations("sgd"):
        rates = [r["rate"] for r in tuned if r["normalization"] == name]
        assert len(rates) == 16 + 3 * 4
        assert all(high < rate <= high * math.sqrt(10.0) for rate in rates[16:20])
        assert all(high * math.sqrt(10.0) < rate <= 10.0 * high for rate in rates[20:24])
    chosen = max(r["rate"] for r in records if r["phase"] == "refine")
    assert {r["rate"] for r in records if r["phase"] == "test"} == {chosen}
    records = play(family, lambda run: -run.point.rate)
    assert min(r["rate"] for r in records) < low / math.sqrt(10.0)


def test_the_default_gain_is_tried_at_the_rate_of_the_plain_network():
    family = FRESH

    def score(run):
        target = 0.1 if run.normalization == "layer" else 0.01
        return -abs(math.log(run.point.rate / target))

    records = play(family, score)

    def rates(phase, name):
        chosen = [r for r in records if (r["phase"], r["normalization"]) == (phase, name)]
        assert {(r["scale"], r["mode"]) for r in chosen} <= {(1.0, "fixed"), (1.0, None)}
        return {r["rate"] for r in chosen}

    assert rates("default", "row_equilibration") == rates("test", "none")
    assert rates("default", "layer+row_equilibration") == rates("test", "layer")
    assert rates("test", "none") != rates("test", "layer")


def test_a_comparison_goes_on_where_it_was():
    family = FRESH
    whole = play(family, closeness(0.02, 1.1))
    for count in (0, 100, 288, 400, len(whole) - 1, len(whole)):
        resumed = play(family, closeness(0.02, 1.1), whole[:count])
        assert {tuning.key_of(r) for r in resumed} == {tuning.key_of(r) for r in whole}
        assert len(resumed) == len(whole)


def test_what_diverges_everywhere_is_not_tested():
    family = FRESH
    records = play(family, lambda run: None if "spectral" in run.normalization else run.point.rate)
    spectral = [r for r in records if r["normalization"] == "spectral_normalization"]
    assert {r["phase"] for r in spectral} == {"tune", "default"}


def test_the_best_point_is_refined_from_another_seed():
    family = FRESH
    lucky = {}

    def score(run):
        if run.phase == "tune" and run.index == 7:
            lucky[run.normalization] = run.point
            return 1.0
        # What the lucky point owed to its seed is gone; half its rate and scale are better.
        return -run.point.rate - run.point.scale

    records = play(family, score)
    for name in family.normalizations("sgd"):
        refined = [r for r in records if (r["normalization"], r["phase"]) == (name, "refine")]
        start = lucky[name]
        assert (refined[0]["rate"], refined[0]["scale"]) == (start.rate, start.scale)
        assert {r["mode"] for r in refined} == {start.mode}
        assert {r["seed"] for r in refined} == {6}
        factors = [(r["rate"] / start.rate, r["scale"] / start.scale) for r in refined]
        assert all(0.5 <= rate <= 2.0 and 2 / 3 <= scale <= 1.5 for rate, scale in factors)
        assert len({rate for rate, _ in factors}) == 6
        # The scale of the network alone, and of the one that is matched, is not free.
        is_free = name not in ("none", "layer") and "matched" not in name
        assert len({scale for _, scale in factors}) == (6 if is_free else 1)
        best = max(refined, key=lambda r: r["score"])
        tested = [r for r in records if (r["normalization"], r["phase"]) == (name, "test")]
        assert {(r["rate"], r["scale"]) for r in tested} == {(best["rate"], best["scale"])}


def test_what_failed_once_is_not_known_yet():
    family = dataclasses.replace(FRESH, activations=())
    whole = play(family, closeness(0.02, 1.1))
    records = [r for r in whole if r["phase"] == "tune"]
    failed = {**records[0], "status": "failed", "score": None}
    runs = tuning.pending("deep", "sgd", [*records[1:], failed], family)
    assert [run.key for run in runs] == [tuning.key_of(failed)]
    runs = tuning.pending("deep", "sgd", [*records[1:], failed, failed], family)
    assert "refine" in {run.phase for run in runs}


def test_points_are_chosen_when_all_that_they_rest_on_is_there():
    family = dataclasses.replace(FRESH, activations=())
    whole = play(family, closeness(0.02, 1.1))

    def phases_without(name, phase):
        records = [r for r in whole if (r["normalization"], r["phase"]) != (name, phase)]
        records = [r for r in records if r["phase"] in ("tune", "refine")]
        runs = tuning.pending("deep", "sgd", records, family)
        return {run.phase for run in runs if run.normalization == "spectral_normalization"}

    assert phases_without("spectral_normalization", "refine") == {"refine"}
    # A range may yet grow for all.
    records = [r for r in whole if r["phase"] == "tune" and r["normalization"] != "none"]
    runs = tuning.pending("deep", "sgd", records, family)
    assert {(run.normalization, run.phase) for run in runs} == {("none", "tune")}
    # The default gain is tried at the rate that is chosen for the network alone.
    assert phases_without("none", "refine") == set()
    assert phases_without("none", "test") == {"test", "default"}


def test_what_diverges_from_another_seed_keeps_its_best_point():
    family = dataclasses.replace(FRESH, activations=())
    records = play(
        family, lambda run: None if run.phase == "refine" else -abs(run.point.rate - 0.02)
    )
    for name in family.normalizations("sgd"):
        tuned = [r for r in records if (r["normalization"], r["phase"]) == (name, "tune")]
        best = max(tuned, key=lambda r: r["score"])
        assert tuning.winner(records, name) == best


def test_matched_networks_are_tuned_after_row_equilibration():
    family = FRESH
    records = play(family, closeness(0.02, 1.1))
    for base in ("none", "layer"):
        rows = tuning.winner(records, naming.with_base(base, "row_equilibration"))
        matched = [r for r in records if r["normalization"] == f"{base}, scale matched"]
        assert {(r["scale"], r["mode"]) for r in matched} == {(rows["scale"], rows["mode"])}
        assert len({r["rate"] for r in matched if r["phase"] == "tune"}) >= 16


def test_what_else_was_tried_has_no_say_in_the_ranges():
    family = dataclasses.replace(FRESH, activations=())
    without = dataclasses.replace(family, more=())

    def score(run):
        return run.point.rate if run.normalization in family.more else -abs(run.point.rate - 0.02)

    def tuning_of(family):
        return [r for r in play(family, score) if r["phase"] == "tune"]

    with_more = tuning_of(family)
    points = {r["rate"] for r in tuning_of(without)}
    assert {r["rate"] for r in with_more} == points
    # As many runs as the others have, at the same rates.
    for name in family.more:
        tuned = [r for r in with_more if r["normalization"] == name]
        assert len({r["rate"] for r in tuned}) == len(points)
    modes = {
        name: {r["mode"] for r in with_more if r["normalization"] == name} for name in family.more
    }
    assert modes["constraint"] == {None}
    # Stored rows of unit norm, kept, are a gain of 1 whatever the scale.
    assert modes["row_equilibration+constraint"] == {*families.MODES} - {"kernel_norm"}
    assert modes["row_equilibration+everywhere"] == {*families.MODES}
    assert len({r["scale"] for r in with_more if r["normalization"] == "constraint"}) == len(points)
