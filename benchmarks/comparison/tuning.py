"""The tuning of every method by the same budget, and what is left to run.

All functions here are pure: what has been run is a list of records, and what is to be run
next follows from it, so that a comparison that was stopped goes on where it was.

Each method is tuned by the same number of runs, at points of one low-discrepancy sequence
shared by all, over the logarithms of the learning rate and of the scale and over the modes of
the gain. Where a method's best point lies at an edge of a range, the range grows for all. Then
each method's best point and some around it are trained from another seed, so that neither the
coarseness of the sequence nor one lucky seed decides: the best of these is chosen. What is matched
in scale to row equilibration, and what else was tried, is tuned when the others have been.
"""

import collections
import dataclasses
import math

from benchmarks.comparison import families, naming, search

# A winner in the outermost sixteenth of a range asks for more of it.
EDGE = 1.0 / search.POINTS
GROWTHS = 3
# A run that fails, as by lack of memory, is tried so often.
ATTEMPTS = 2
TUNE_SEED, REFINE_SEED, TEST_SEEDS = 0, 6, tuple(range(1, 6))


@dataclasses.dataclass(frozen=True)
class Run:
    """One model to train.

    Args:
        family: Name in `families.FAMILIES`.
        normalization: One of its normalizations.
        optimizer: One of `families.OPTIMIZERS`.
        phase: "tune", "refine" around the best point of that, "test" at the chosen point,
            "seconds" at the same point in as many seconds as the plain network takes, "half" with
            conditioning in the first half of the epochs, "whole" at the same point in all, or
            "default": the method at its own default gain, at the rate that was chosen for the
            plain network.
        index: Of the point in its sequence, in tuning counted on through growths; None in tests.
        seed: Of initial weights and order.
        point: Where.
        part: How much of each epoch's batches is used.
    """

    family: str
    normalization: str
    optimizer: str
    phase: str
    index: int | None
    seed: int
    point: search.Point
    part: float = 1.0

    @property
    def key(self):
        """What no two runs of a comparison share."""
        return key_of(dataclasses.asdict(self))


def key_of(record):
    """The `Run.key` of a record."""
    place = record["seed"] if record["index"] is None else record["index"]
    names = ("family", "normalization", "optimizer", "phase")
    return (*(record[name] for name in names), place)


def is_late(family, optimizer, name):
    """Whether it is tuned when the others have been, and has no say in their ranges."""
    return naming.is_matched(name) or name in family.late_ones(optimizer)


def latest(records):
    """One record of each run: one that ended, rather than one that failed."""
    chosen = {}
    for record in sorted(records, key=lambda record: record["status"] != "failed"):
        chosen[key_of(record)] = record
    return list(chosen.values())


def best(records):
    """The record with the best validation score; one that diverged is worse than any."""
    finished = [record for record in records if record["status"] == "finished"]
    return max(finished, key=lambda record: record["score"], default=None)


def growth(family, optimizer, records, growths):
    """The next stretch to add: the edge of the ranges at which most winners lie; or None."""
    _, ranges = search.coordinates(family, optimizer, growths)
    votes = collections.Counter()
    for normalization in family.normalizations(optimizer):
        winner = best(r for r in records if r["normalization"] == normalization)
        for name, (low, high) in ranges.items():
            # A scale of exactly 1 was not tuned.
            if not winner or (name == "scale" and winner["scale"] == 1.0):
                continue
            where = math.log(winner[name] / low) / math.log(high / low)
            if where < EDGE or where > 1.0 - EDGE:
                votes[name, -1 if where < EDGE else 1] += 1
    return votes.most_common(1)[0][0] if votes and len(growths) < GROWTHS else None


def growths_of(family, optimizer, records):
    """All stretches of the ranges, as given or as the records ask for, and whether that is all."""
    if optimizer in family.growths:
        return list(family.growths[optimizer]), True
    names = [
        name for name in family.normalizations(optimizer) if not is_late(family, optimizer, name)
    ]
    done = keys_done(records)
    tuned = [
        r
        for r in latest(records)
        if r["phase"] == "tune" and r["normalization"] in names and key_of(r) in done
    ]
    growths = []
    while True:
        count = search.POINTS + len(growths) * search.POINTS_MORE
        known = [r for r in tuned if r["index"] < count]
        if len(known) < count * len(names):
            return growths, False
        more = growth(family, optimizer, known, growths)
        if more is None:
            return growths, True
        growths.append(more)


def pending(name, optimizer, records, family=None):
    """The runs that can start now for one family and optimizer, given the records of both.

    An empty list when all is done. All methods that are not late are tuned together, with their
    growths, and then each one goes on by itself: it is refined, and then tested.
    """
    family = family or families.FAMILIES[name]
    own = [r for r in records if r["family"] == name and r["optimizer"] == optimizer]
    done = keys_done(own)
    growths, complete = growths_of(family, optimizer, own)
    own = latest(own)
    places, _ = search.coordinates(family, optimizer, growths)

    def left(runs):
        return [run for run in runs if run.key not in done]

    def tuning_of(normalization):
        """All runs of a method's tuning, or None where they wait for those of others."""
        if is_late(family, optimizer, normalization) and not complete:
            return None
        matched = None
        if naming.is_matched(normalization):
            rows = naming.with_base(naming.base_of(normalization), "row_equilibration")
            matched = winner(own, rows) if left_to_choose(rows) == [] else None
            if matched is None:
                return None
        points = [search.chosen_point(family, normalization, place, matched) for place in places]
        return [
            Run(name, normalization, optimizer, "tune", index, TUNE_SEED, point)
            for index, point in enumerate(points)
        ]

    def left_to_choose(normalization):
        """What is left to run until its point is chosen, or None where that waits for others."""
        runs = tuning_of(normalization)
        if runs is None or left(runs):
            return runs and left(runs)
        return left(refinements(name, family, normalization, optimizer, own)) if complete else None

    runs = []
    for normalization in family.normalizations(optimizer):
        tuned = left_to_choose(normalization)
        if tuned == [] and left_to_choose(naming.base_of(normalization)) == []:
            tuned = left(tests(name, normalization, optimizer, own))
        runs += tuned or []
    return runs


def refinements(name, family, normalization, optimizer, records):
    """Runs at and around the best point of a method's tuning, from another seed."""
    start = best(of_phase(records, normalization, "tune"))
    if start is None:
        return []
    points = [
        search.Point(
            rate,
            scale if search.has_scale(family, normalization) else start["scale"],
            start["mode"],
        )
        for rate, scale in search.around((start["rate"], start["scale"]))
    ]
    return [
        Run(name, normalization, optimizer, "refine", index, REFINE_SEED, point)
        for index, point in enumerate(points)
    ]


def keys_done(records):
    """The keys of runs that ended, or failed as often as they are tried."""
    failures = collections.Counter(key_of(r) for r in records if r["status"] == "failed")
    done = {key_of(r) for r in records if r["status"] != "failed"}
    return done | {key for key, count in failures.items() if count >= ATTEMPTS}


def of_phase(records, normalization, phase):
    """The records of one method in one phase."""
    return [r for r in records if r["normalization"] == normalization and r["phase"] == phase]


def winner(records, normalization):
    """The record whose point a method is tested at, or None: the best of those that refined it."""
    phases = (of_phase(records, normalization, phase) for phase in ("refine", "tune"))
    return next(filter(None, map(best, phases)), None)


def has_default(family, optimizer, normalization):
    """Whether a method is also tried at its own default gain."""
    is_late = normalization in family.late_ones(optimizer)
    return not naming.is_plain(normalization) and not is_late


def tests(name, normalization, optimizer, records):
    """Fresh seeds at the best point, and at the default gain with the plain network's rate."""

    def seeds(phase, point):
        return [
            Run(name, normalization, optimizer, phase, None, seed, point) for seed in TEST_SEEDS
        ]

    runs = []
    chosen = winner(records, normalization)
    if chosen:
        runs += seeds("test", search.Point(chosen["rate"], chosen["scale"], chosen["mode"]))
    plain = winner(records, naming.base_of(normalization))
    if plain and has_default(families.FAMILIES[name], optimizer, normalization):
        has_own_gain = naming.method_of(normalization) == "weight_normalization"
        runs += seeds(
            "default", search.Point(plain["rate"], 1.0, None if has_own_gain else "fixed")
        )
    return runs
