"""What gains consist of, and what remains of them at equal seconds."""

import dataclasses

import pytest

from benchmarks.comparison import (
    attribution,
    equal_seconds,
    evidence,
    families,
    naming,
    sentences,
    significance,
    tables,
    times,
    tuning,
)
from tests.benchmarks.finished import records_of

WHERE = ("shape", "sgd")
NEWTON = "newton_orthogonalization"


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("row_equilibration", "none, scale matched"),
        ("batch+row_equilibration+everywhere", "batch, scale matched"),
        (NEWTON, f"{NEWTON}+at_start"),
        (f"{NEWTON}+differentiated", f"{NEWTON}+at_start"),
        (f"layer+{NEWTON}", f"layer+{NEWTON}+at_start"),
        ("newton_step+stored", "orthogonal_initializer"),
        ("batch+centered_newton_step+stored", "batch+orthogonal_initializer"),
        ("spectral_normalization", "none, scale tuned"),
        ("layer+orthogonal_updates", "layer, scale tuned"),
        ("orthogonal_initializer+orthogonal_updates", "orthogonal_initializer"),
    ],
)
def test_the_start_of_a_method(name, start):
    assert naming.start_of(name) == start


def test_what_a_gain_consists_of(family, scores):
    scores = {
        **scores,
        NEWTON: 0.96,
        f"{NEWTON}+at_start": 0.93,
        "none, scale tuned": 0.91,
        "weight_standardization": 0.92,
        "newton_step+stored": 0.9,
        "orthogonal_updates": 0.95,
    }
    found = {WHERE: evidence.summaries(family, "sgd", records_of(family, scores))}
    compared = significance.comparisons(found)
    seconds = {"none": 0.1, NEWTON: 0.3, "spectral_normalization": 0.11}
    measured = {WHERE: times.Times(seconds, 80)}
    gains = {gain.method: gain for gain in attribution.gains(found, compared, measured)}
    gain = gains[NEWTON]
    parts = gain.total, gain.of_start, gain.of_scale, gain.of_centering, gain.of_spectrum
    assert parts == pytest.approx((0.06, 0.03, 0.01, 0.02, 0.03), abs=2e-3)
    assert gain.is_win
    assert gain.share_of_start == pytest.approx(0.5, abs=0.03)
    assert gain.cheapest == NEWTON
    assert not gains["newton_step+stored"].is_win
    # Orthogonal updates start as the network alone of tuned scale.
    gain = gains["orthogonal_updates"]
    assert (gain.of_start, gain.of_spectrum) == pytest.approx((0.01, 0.03), abs=2e-3)
    (row,) = [
        line
        for line in tables.attribution(gains.values(), measured).splitlines()
        if line.split("|")[2].strip() == f"`{NEWTON}`"
    ]
    assert row.count("3.00×") == 2
    table = tables.starts(gains.values(), found)
    (row,) = [line for line in table.splitlines() if f"`{NEWTON}`" in line]
    gain = gains[NEWTON]
    assert round(100 * gain.share_of_start) == int(row.split("|")[-2].strip(" %"))
    (row,) = [line for line in table.splitlines() if "`newton_step+stored`" in line]
    assert "not significant" in row
    (row,) = [line for line in table.splitlines() if "`orthogonal_updates`" in line]
    assert "%" in row
    none = dataclasses.replace(gain, of_start=-0.01)
    assert tables.starts([none], found).splitlines()[-1].split("|")[-2].strip() == "none"


def test_the_cheapest_that_keeps_a_gain(family, scores):
    scores = {**scores, NEWTON: 0.96, f"{NEWTON}+at_start": 0.9599}
    found = {WHERE: evidence.summaries(family, "sgd", records_of(family, scores))}
    measured = {WHERE: times.Times({"none": 0.1, NEWTON: 0.3}, 80)}
    gains = attribution.gains(found, significance.comparisons(found), measured)
    (gain,) = [gain for gain in gains if gain.method == NEWTON]
    # Its steps are those of the plain network.
    assert gain.cheapest == f"{NEWTON}+at_start"
    gains = attribution.gains(found, {}, {})
    assert {gain.cheapest for gain in gains} == {None}
    assert not any(gain.is_win for gain in gains)


MEASURED = {
    ("shape", "sgd"): times.Times(
        {"none": 0.1, NEWTON: 0.2, "row_equilibration": 0.09, "spectral_normalization": 0.4}, 80
    ),
    ("shape", "adamw"): times.Times({"none": 0.1}, 80),
    ("shape", "muon"): times.Times({"none": 0.25}, 80),
}


class TestEqualSeconds:
    def test_the_part_of_the_steps(self):
        part = equal_seconds.part_of
        assert part(MEASURED, "shape", "sgd", NEWTON) == 0.5
        # What is faster gets no more steps, and what starts otherwise takes no longer.
        assert part(MEASURED, "shape", "sgd", "row_equilibration") == 1.0
        assert part(MEASURED, "shape", "sgd", "none, scale tuned") == 1.0
        # Beside AdamW, not beside itself.
        assert part(MEASURED, "shape", "muon", "none") == pytest.approx(0.4)
        assert part(MEASURED, "shape", "sgd", "polynomial_preconditioner") is None

    def test_runs_are_those_of_the_first_of_each_side(self, family, scores):
        scores = {**scores, NEWTON: 0.96}
        records = records_of(family, scores)
        names = equal_seconds.first(tuning.latest(records))
        assert set(names) >= {NEWTON, "row_equilibration", "spectral_normalization"}
        assert len(names) == 6
        assert not {naming.without_base(name) for name in names} & {*families.VARIANTS}
        runs = equal_seconds.pending_in(MEASURED)("shape", "sgd", records)
        assert {run.normalization: run.part for run in runs} == {
            NEWTON: 0.5,
            "spectral_normalization": 0.25,
        }
        assert {run.phase for run in runs} == {"seconds"}
        assert [run.seed for run in runs[:5]] == list(tuning.TEST_SEEDS)
        done = [self.record(run, 0.9) for run in runs[:3]]
        left = equal_seconds.pending_in(MEASURED)("shape", "sgd", [*records, *done])
        assert left == runs[3:]

    def test_the_best_of_both_sides_are_compared(self, family, scores):
        scores = {**scores, NEWTON: 0.96}
        records = records_of(family, scores)
        runs = equal_seconds.pending_in(MEASURED)("shape", "sgd", records)
        # In half of the time Newton's iteration falls behind row equilibration.
        records += [self.record(run, 0.94 if run.normalization == NEWTON else 0.5) for run in runs]
        muon = records_of(family, {**dict.fromkeys(scores, 0.92), "none": 0.97}, "muon")
        everything = {("shape", "sgd"): records, ("shape", "muon"): muon}
        found = {key: evidence.summaries(family, key[1], own) for key, own in everything.items()}
        with_muon = equal_seconds.outcomes(everything, found, MEASURED)
        # Muon's plain network was not trained in as many seconds.
        assert [(outcome.key[1], outcome.ours) for outcome in with_muon] == [
            ("sgd", ("sgd", "row_equilibration")),
            ("any optimizer", ("sgd", "row_equilibration")),
        ]
        runs = equal_seconds.pending_in(MEASURED)("shape", "muon", muon)
        everything["shape", "muon"] = [*muon, *(self.record(run, 0.97) for run in runs)]
        outcomes = equal_seconds.outcomes(everything, found, MEASURED)
        (outcome,) = [outcome for outcome in outcomes if outcome.key == ("shape", "sgd", "none")]
        assert outcome.theirs == ("muon", "none")
        assert outcome.comparison.outcome == "loss"
        told = sentences.at_equal_seconds(outcomes)
        assert "With the optimizer of the setting it wins in 0, ties in 0 and loses in" in told
        table = tables.equal_seconds(outcomes)
        assert "`none`, muon" in table

    def record(self, run, score):
        point = dataclasses.asdict(run.point)
        noise = 1e-4 * run.seed
        return {
            **{k: v for k, v in dataclasses.asdict(run).items() if k != "point"},
            **point,
            "status": "finished",
            "score": score,
            "scores": [score],
            "losses": [0.1],
            "test": score + noise,
            "condition_numbers": [1.0, 2.0, 3.0],
        }
