"""Repeat the tests of Newton's iteration with conditioning in the first half of the epochs only.

`keras_wcond.FoldConditioning` ends the conditioning. The point is the best of those whose gain
keeps the norm of the kernel. With other gains the norms of kernels change when they are folded, and
with them the effect of the learning rate. Where the comparison tested another point, the method is
trained there in all epochs as well. Appends JSON lines to those of the comparison, and goes on
from the lines that are there.
"""

import dataclasses

from scipy import stats

from benchmarks.comparison import evidence, families, naming, search, significance, tuning
from benchmarks.comparison import run as comparison

METHOD = families.NEWTON
GAIN = "kernel_norm"


def pending(name, optimizer, records):
    """The runs that are left, as `tuning.pending`."""
    own, done = tuning.latest(records), tuning.keys_done(records)
    runs = []
    for method in methods(own):
        best, tested = best_point(own, method), tuning.winner(own, method)
        if best is None:
            continue
        point = search.Point(best["rate"], best["scale"], best["mode"])
        for phase in ("half",) if best is tested else ("half", "whole"):
            runs += [
                tuning.Run(name, method, optimizer, phase, None, seed, point)
                for seed in tuning.TEST_SEEDS
            ]
    return [run for run in runs if run.key not in done]


def methods(records):
    """The names of the method under each normalization of activations, where it was tested."""
    tested = dict.fromkeys(r["normalization"] for r in records if r["phase"] == "test")
    return [name for name in tested if naming.without_base(name) == METHOD]


def best_point(records, method):
    """The record of the best point whose gain keeps the kernel's norm, or None."""
    for phase in ("refine", "tune"):
        found = tuning.of_phase(records, method, phase)
        best = tuning.best(record for record in found if record["mode"] == GAIN)
        if best:
            return best
    return None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What remains of a gain if conditioning ends after half of the epochs.

    Args:
        key: Family, optimizer and normalization of activations.
        plain: Test scores of the network alone, by seed.
        half: Those with conditioning in the first half.
        whole: Those with conditioning to the end, at the same point.
        comparisons: `significance.Comparison` of the half with "plain" and with "whole".
    """

    key: tuple[str, str, str]
    plain: dict[int, float]
    half: dict[int, float]
    whole: dict[int, float]
    comparisons: dict[str, significance.Comparison]


def outcomes(everything):
    """An `Outcome` of each setting that was run, with p corrected for all of them.

    Args:
        everything: {(family, optimizer): records}.
    """
    found = []
    for where, records in everything.items():
        own = tuning.latest(records)
        for method in methods(own):
            base = naming.base_of(method)
            half, whole, test = (
                evidence.scores_of(tuning.of_phase(own, method, phase), "test")
                for phase in ("half", "whole", "test")
            )
            plain = evidence.scores_of(tuning.of_phase(own, base, "test"), "test")
            if len(half) == len(tuning.TEST_SEEDS):
                found.append(((*where, base), plain, half, whole or test))
    if not found:
        return []
    tests = [
        significance.paired_test(half, other)
        for _, plain, half, whole in found
        for other in (plain, whole)
    ]
    corrected = iter(stats.false_discovery_control([p for *_, p in tests]))
    differences = iter(tests)
    chosen = []
    for key, plain, half, whole in found:
        comparisons = {}
        for role in ("plain", "whole"):
            difference, width, _ = next(differences)
            p = float(next(corrected))
            comparisons[role] = significance.Comparison("half", role, difference, width, p)
        chosen.append(Outcome(key, plain, half, whole, comparisons))
    return chosen


def main(words=None):
    options = comparison.parser("benchmarks.comparison.first_half", __doc__).parse_args(words)
    comparison.compare(options, pending)


if __name__ == "__main__":
    main()
