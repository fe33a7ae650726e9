"""Whether methods differ: paired tests within a comparison, unpaired ones across backends.

All functions are pure, and correct p for the number of tests.
"""

import dataclasses
import math
import statistics

import numpy as np
from scipy import stats

from benchmarks.comparison import evidence, families, naming, tuning

LEVEL = 0.05
BASELINES = (*families.BASELINES, families.REGULARIZED)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One method against another, paired by seed.

    Args:
        first: Name of the method.
        second: Name of what it is compared with.
        difference: Mean of the first's scores less the second's.
        interval: Half the width of the 95 % interval of that mean.
        p: Of a paired t-test, corrected for the number of comparisons.
    """

    first: str
    second: str
    difference: float
    interval: float
    p: float

    @property
    def outcome(self):
        """Of the first, at a level of 5 %: "win", "tie" or "loss"."""
        if not self.p < LEVEL:
            return "tie"
        return "win" if self.difference > 0 else "loss"


def pairs(found):
    """The comparisons that are made: (method, what it is compared with, in which role)."""
    scored = [name for name, summary in found.items() if summary.scores]
    # Whatever is done to activations; but no variant, since baselines have none.
    ours = [name for name in scored if naming.without_base(name) in families.OURS]
    others = [
        name
        for name in scored
        if naming.without_base(name) not in (*families.OURS, *families.VARIANTS)
    ]
    chosen = []
    if ours and others:
        best = [max(names, key=lambda name: found[name].validation) for names in (ours, others)]
        chosen.append((*best, "best of all"))
    for base in dict.fromkeys(map(naming.base_of, found)):
        baselines = (base, *(naming.with_base(base, baseline) for baseline in BASELINES))
        baselines = [baseline for baseline in baselines if baseline in scored]
        for method in (*families.OURS, *families.VARIANTS):
            name = naming.with_base(base, method)
            if name not in scored or not baselines:
                continue
            others = {
                "alone": base,
                # The best on the test data itself: the choice that is hardest to beat.
                "best baseline": max(baselines, key=lambda baseline: found[baseline].mean),
                "start": naming.start_of(name),
            }
            if method in families.OURS:
                others["tuned"] = f"{base}, {families.TUNED}"
                others["Frobenius"] = naming.with_base(base, families.FROBENIUS)
            if method == families.UNCENTERED:
                others["centered"] = naming.with_base(base, families.NEWTON)
            if method.endswith("+differentiated"):
                others["constant"] = naming.with_base(base, method.partition("+")[0])
            chosen += [(name, other, role) for role, other in others.items() if other in scored]
    return chosen


def comparisons(cells):
    """All comparisons of all families and optimizers, corrected together.

    Args:
        cells: {(family, optimizer): summaries}.

    Returns:
        {(family, optimizer): {(method, role): Comparison}}, with p after Benjamini and
        Hochberg.
    """
    chosen = [(key, *pair) for key, found in cells.items() for pair in pairs(found)]
    results = [
        paired_test(cells[key][first].scores, cells[key][second].scores)
        for key, first, second, _ in chosen
    ]
    compared = {key: {} for key in cells}
    if not results:
        return compared
    corrected = stats.false_discovery_control([p for _, _, p in results])
    for (key, first, second, role), (difference, width, _), p in zip(
        chosen, results, corrected, strict=True
    ):
        compared[key][first, role] = Comparison(first, second, difference, width, float(p))
    return compared


def paired_test(first, second):
    """Two sets of scores, paired by seed.

    Returns:
        The mean difference, half the width of its 95 % interval, and p of a paired t-test.
    """
    seeds = sorted(first.keys() & second.keys())
    differences = [first[seed] - second[seed] for seed in seeds]
    mean = statistics.mean(differences) if seeds else math.nan
    if len(seeds) < 2:
        return mean, math.nan, 1.0
    if np.ptp(differences) == 0.0:
        return mean, 0.0, 1.0 if mean == 0.0 else 0.0
    return mean, evidence.interval(differences), float(stats.ttest_1samp(differences, 0.0).pvalue)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One method on another backend, at the point that was chosen.

    Args:
        family: Name of the family.
        optimizer: Name of the optimizer.
        normalization: Name of the method.
        backend: The other backend.
        first: Test scores of the comparison, by seed.
        second: Those of the other backend.
        p: Of Welch's t-test, since seeds mean other numbers there, corrected for the number of
            such tests.
    """

    family: str
    optimizer: str
    normalization: str
    backend: str
    first: dict[int, float]
    second: dict[int, float]
    p: float


def agreements(cells, others):
    """An `Agreement` of all that was repeated on other backends.

    Args:
        cells: {(family, optimizer): summaries}.
        others: {backend: {(family, optimizer): records}}.
    """
    found = []
    for backend, everything in others.items():
        for (family, optimizer), records in everything.items():
            records = tuning.latest(records)
            for name in dict.fromkeys(record["normalization"] for record in records):
                first = cells[family, optimizer][name].scores
                second = evidence.scores_of(
                    [r for r in records if r["normalization"] == name], "test"
                )
                values = [list(scores.values()) for scores in (first, second)]
                same = np.ptp(np.concatenate(values)) == 0.0
                p = 1.0 if same else float(stats.ttest_ind(*values, equal_var=False).pvalue)
                found.append(Agreement(family, optimizer, name, backend, first, second, p))
    if not found:
        return []
    corrected = stats.false_discovery_control([each.p for each in found])
    return [dataclasses.replace(each, p=float(p)) for each, p in zip(found, corrected, strict=True)]
