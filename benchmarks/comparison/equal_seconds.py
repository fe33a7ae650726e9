"""Repeat the tests of a comparison in as many seconds as the plain network takes.

In each setting, a family with a normalization of activations and an optimizer, those that come
first on validation data are trained again from the same seeds: those of this package, and all
others. Where a step takes longer than the plain network's with SGD or AdamW, as
`benchmarks.comparison.step_times` measured it, each epoch has so many steps fewer, and the
learning rate falls along the same curve. Appends JSON lines to those of the comparison, and goes
on from the lines that are there.
"""

import dataclasses

from scipy import stats

from benchmarks.comparison import evidence, families, naming, significance, times, tuning
from benchmarks.comparison import run as comparison

# How many of each side.
FIRST = 3
# In place of an optimizer's name, where each side may have another one.
ANY = "any optimizer"


def pending_in(measured):
    """The runs that are left, as `tuning.pending`.

    Args:
        measured: {(family, optimizer): `times.Times`}.
    """

    def pending(name, optimizer, records):
        own = tuning.latest(records)
        done = tuning.keys_done(records)
        return [
            dataclasses.replace(run, phase="seconds", part=part)
            for method in first(own)
            if (part := part_of(measured, name, optimizer, method)) and part < 1.0
            for run in tuning.tests(name, method, optimizer, own)
            if run.phase == "test" and dataclasses.replace(run, phase="seconds").key not in done
        ]

    return pending


def first(records):
    """The names that come first on validation data, of each side and under each normalization."""
    validation = {}
    for record in records:
        if record["phase"] == "test":
            scores = validation.setdefault(record["normalization"], [])
            scores.append(record["score"] or 0.0)
    means = {name: sum(scores) / len(scores) for name, scores in validation.items()}
    sides = {}
    for name in sorted(means, key=means.get, reverse=True):
        method = naming.without_base(name)
        if method not in families.VARIANTS:
            side = sides.setdefault((naming.base_of(name), method in families.OURS), [])
            side.append(name)
    return [name for side in sides.values() for name in side[:FIRST]]


def part_of(measured, family, optimizer, name):
    """The ratio of a plain step's time to a method's, at most 1, or None where it is not known.

    Muon's is compared with AdamW's.
    """
    plain = measured[family, "adamw" if optimizer == "muon" else optimizer]
    own = measured[family, optimizer].of_step(name)
    reference = plain.of_step(naming.base_of(name))
    return min(reference / own, 1.0) if own and reference else None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The best of this package against the best of all others in one setting.

    Args:
        key: Family, optimizer and normalization of activations.
        ours: (optimizer, name) of the former.
        theirs: (optimizer, name) of the latter.
        scores: The test scores of both, by seed.
        comparison: A `significance.Comparison`, with p corrected for all settings.
    """

    key: tuple[str, str, str]
    ours: tuple[str, str]
    theirs: tuple[str, str]
    scores: tuple[dict[int, float], dict[int, float]]
    comparison: significance.Comparison


def outcomes(everything, found, measured):
    """An `Outcome` of each setting that was measured, and of each task with any optimizer.

    Args:
        everything: {(family, optimizer): records}.
        found: {(family, optimizer): {name: evidence.Summary}}, of what is complete.
        measured: {(family, optimizer): `times.Times`}.
    """
    settings = {}
    for (family, optimizer), cell in found.items():
        records = tuning.latest(everything[family, optimizer])
        for name in first(records):
            part = part_of(measured, family, optimizer, name)
            if part is None:
                continue
            phase = "seconds" if part < 1.0 else "test"
            tested = tuning.of_phase(records, name, phase)
            if len(tested) < len(tuning.TEST_SEEDS) or not cell[name].scores:
                continue
            is_ours = naming.without_base(name) in families.OURS
            joined = [optimizer, ANY]
            if optimizer == "muon" and not is_ours:
                joined = [*(each for task, each in found if task == family), ANY]
            for each in joined:
                key = family, each, naming.base_of(name)
                sides = settings.setdefault(key, ({}, {}))
                sides[not is_ours][optimizer, name] = tested
    chosen = []
    for key, sides in sorted(settings.items(), key=lambda item: place_in_table(item[0])):
        if all(sides):
            best = [max(side, key=lambda each: validation(side[each])) for side in sides]
            scores = [
                evidence.scores_of(side[each], "test")
                for side, each in zip(sides, best, strict=True)
            ]
            chosen.append((key, *best, tuple(scores)))
    if not chosen:
        return []
    tests = [significance.paired_test(*scores) for *_, scores in chosen]
    corrected = stats.false_discovery_control([p for _, _, p in tests])
    return [
        Outcome(
            key,
            ours,
            theirs,
            scores,
            significance.Comparison(ours[1], theirs[1], difference, width, float(p)),
        )
        for (key, ours, theirs, scores), (difference, width, _), p in zip(
            chosen, tests, corrected, strict=True
        )
    ]


def place_in_table(key):
    """The order of settings: tasks, normalizations of activations, optimizers."""
    family, optimizer, base = key
    tasks, optimizers = list(families.FAMILIES), [*families.OPTIMIZERS, ANY]
    return tasks.index(family), base != families.PLAIN, base, optimizers.index(optimizer)


def validation(records):
    """The mean validation score; one that diverged counts as 0."""
    return sum(record["score"] or 0.0 for record in records) / len(records)


def main(words=None):
    options = comparison.parser("benchmarks.comparison.equal_seconds", __doc__).parse_args(words)
    comparison.compare(options, pending_in(times.read(options.results)))


if __name__ == "__main__":
    main()
