"""Which kind of conditioning to choose in each setting: what each kind gains, and what it costs.

All functions are pure, and take what `evidence.summaries` and `times.read` return.
"""

import dataclasses

from scipy import stats

from benchmarks.comparison import evidence, families, naming, search, significance

# Kinds of conditioning, the simplest first, and their configurations.
KINDS = {
    "start": (*families.AT_START, families.TUNED, families.MATCHED),
    "baseline": significance.BASELINES,
    "rows": (families.ROWS,),
    "stored": (families.STORED, families.CENTERED_STORED),
    "forward": (*families.MATRIX_METHODS, families.UNCENTERED),
    "updates": (families.UPDATES, families.STARTED_UPDATES, families.CENTERED_UPDATES),
}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The configuration of a kind that is best on validation data, in one setting.

    Args:
        kind: One of `KINDS`.
        name: Name of the configuration.
        comparison: `significance.Comparison` with the network alone.
        mean: Of its test scores.
        interval: Half the width of the 95 % interval of that mean.
        cost: The time of its step over that of the network alone, or None where it is not known.
    """

    kind: str
    name: str
    comparison: significance.Comparison
    mean: float
    interval: float
    cost: float | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is there to choose from in one setting.

    Args:
        key: Family, optimizer and normalization of activations.
        alone: Test scores of the network alone, by seed.
        candidates: {kind: Candidate}.
    """

    key: tuple[str, str, str]
    alone: dict[int, float]
    candidates: dict[str, Candidate]

    @property
    def better(self):
        """The candidates that are significantly better than the network alone.

        Where seeds of the network alone fail, their spread hides any difference, and a higher mean
        is enough.
        """
        scores = self.alone.values()
        fails = min(scores) < search.HOPELESS * max(scores)
        return [
            each
            for each in self.candidates.values()
            if each.comparison.outcome == "win" or (fails and each.comparison.difference > 0.0)
        ]

    @property
    def chosen(self):
        """The candidate with the shortest step among those as good as the best, or None.

        As good is a mean within the interval of the best mean. None stands for the network alone,
        where no kind is better, and for costs that are not known.
        """
        better = self.better
        if not better or any(each.cost is None for each in better):
            return None
        best = max(better, key=lambda each: each.mean)
        as_good = [each for each in better if each.mean >= best.mean - best.interval]
        order = list(KINDS)
        return min(as_good, key=lambda each: (round(each.cost, 1), order.index(each.kind)))


def choices(found, times):
    """A `Choice` for each setting.

    Args:
        found: {(family, optimizer): {name: evidence.Summary}}.
        times: {(family, optimizer): `times.Times`}.
    """
    chosen = []
    for where, cell in found.items():
        scored = [name for name, summary in cell.items() if summary.scores]
        for base in dict.fromkeys(map(naming.base_of, scored)):
            for kind in KINDS:
                names = [name for name in scored if kind_of(name) == (base, kind)]
                if names and base in scored:
                    best = max(names, key=lambda name: cell[name].validation)
                    chosen.append(((*where, base), kind, best))
    if not chosen:
        return []
    tests = [
        significance.paired_test(found[key[:2]][name].scores, found[key[:2]][key[2]].scores)
        for key, _, name in chosen
    ]
    corrected = stats.false_discovery_control([p for _, _, p in tests])
    settings = {}
    for (key, kind, name), (difference, width, _), p in zip(chosen, tests, corrected, strict=True):
        family, optimizer, base = key
        summary = found[family, optimizer][name]
        settings.setdefault(key, {})[kind] = Candidate(
            kind=kind,
            name=name,
            comparison=significance.Comparison(name, base, difference, width, float(p)),
            mean=summary.mean,
            interval=evidence.interval(summary.scores.values()),
            cost=times[family, optimizer].ratio(name, base) if times else None,
        )
    return [
        Choice(key, found[key[:2]][key[2]].scores, candidates)
        for key, candidates in settings.items()
    ]


def kind_of(name):
    """The normalization of activations of a configuration and its kind, None if it has none."""
    base = naming.base_of(name)
    own = name.partition(", ")[2] or naming.without_base(name)
    return base, next((kind for kind, names in KINDS.items() if own in names), None)
