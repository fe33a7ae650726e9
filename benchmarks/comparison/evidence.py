"""What the records of a comparison say: means, intervals, paired tests, bands, epochs.

All functions are pure, and take the records of one family and optimizer.
"""

import dataclasses
import math
import statistics

import numpy as np
from scipy import stats

from benchmarks.comparison import families, tuning

RIVALS = ("weight_normalization", "weight_standardization", "spectral_normalization")
OURS = ("row_equilibration", families.NEWTON, "polynomial_preconditioner")
# What counts as the same quality, in units of the score.
TOLERANCE = {"accuracy": 0.01, "IoU": 0.01, "PSNR": 0.5}
LEVEL = 0.05
# How scores are written: what they are, times what, and their digits.
FORMS = {
    "accuracy": ("test accuracy, %", 100.0, "{:.2f}"),
    "IoU": ("test IoU, %", 100.0, "{:.2f}"),
    "PSNR": ("test PSNR, dB", 1.0, "{:.2f}"),
}


@dataclasses.dataclass(frozen=True)
class Summary:
    """One method at its chosen point.

    Args:
        normalization: Its name.
        point: The record whose point was chosen.
        scores: On the test data, by seed; 0, the worst there is, where training diverged.
        validation: Mean of these seeds on the validation data.
        default: The same at a gain of 1 and the plain network's rate.
        failed: How many of the seeds diverged.
        default_failed: How many of those at a gain of 1.
        at_edge: Whether the chosen point lies at an edge of the ranges.
        band: Factor between the lowest and the highest rate among the runs of the tuning
            that come within the tolerance of the best.
        searched: How many runs the point was chosen from.
        diverged: How many of these did not finish.
        epochs: Median number of epochs until validation reaches the plain network's last
            score, or None where most seeds do not reach it.
        loss: Median of the last training losses.
        condition_number: Median over seeds of the median over kernels.
        curvature: The largest eigenvalue of the Hessian of the loss after training, of one seed.
    """

    normalization: str
    point: dict
    scores: dict[int, float]
    validation: float
    default: dict[int, float]
    failed: int
    default_failed: int
    at_edge: bool
    band: float
    searched: int
    diverged: int
    epochs: float | None
    loss: float | None
    condition_number: float | None
    curvature: float | None

    @property
    def mean(self):
        """Of the scores; not a number where there are none."""
        return _mean(self.scores.values())


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


def interval(scores):
    """Half the width of the 95 % interval of a mean, by Student's t."""
    values = list(scores)
    if len(values) < 2:
        return math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1)) * error


def of(records, **fields):
    """The records of runs that finished, whose fields are as given."""
    return [
        record
        for record in records
        if record["status"] == "finished"
        and all(record[name] == value for name, value in fields.items())
    ]


def summaries(family, optimizer, records):
    """A `Summary` of each method that was tuned, by name."""
    growths, _ = tuning.growths_of(family, optimizer, records)
    records = tuning.latest(records)
    _, ranges = tuning.coordinates(family, optimizer, growths)
    level = _last_score(records, families.PLAIN)
    found = {}
    for name in family.normalizations():
        tuned, refined, tested, default = (
            tuning.of_phase(records, name, phase) for phase in ("tune", "refine", "test", "default")
        )
        point = tuning.winner(records, name)
        if point is None:
            continue
        finished = of(tested)
        found[name] = Summary(
            normalization=name,
            point=point,
            scores=_scores(tested, "test"),
            validation=_mean(_scores(tested, "score").values()),
            default=_scores(default, "test"),
            failed=len(tested) - len(finished),
            default_failed=len(default) - len(of(default)),
            at_edge=not tuning.is_matched(name) and at_edge(point, ranges),
            band=band(tuned, TOLERANCE[family.test_score]),
            searched=len(tuned) + len(refined),
            diverged=sum(record["status"] != "finished" for record in tuned + refined),
            epochs=epochs_to(level, tested),
            loss=_median(record["losses"][-1] for record in finished),
            condition_number=_median(record["condition_numbers"][1] for record in finished),
            curvature=_median(record.get("largest_eigenvalue") for record in finished),
        )
    return found


def _scores(records, name):
    return {record["seed"]: record.get(name) or 0.0 for record in records}


def _mean(values):
    return statistics.mean(values) if values else math.nan


def _median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _last_score(records, name):
    tested = [record["score"] for record in of(records, normalization=name, phase="test")]
    return statistics.mean(tested) if tested else math.inf


def at_edge(point, ranges):
    """Whether a point lies in the outermost sixteenth of a range it was tuned in."""
    for name, (low, high) in ranges.items():
        where = math.log(point[name] / low) / math.log(high / low)
        is_tuned = name == "rate" or point["scale"] != 1.0
        if is_tuned and not tuning.EDGE <= where <= 1.0 - tuning.EDGE:
            return True
    return False


def band(tuned, tolerance):
    """The factor between the extreme rates at which runs come close to the best."""
    top = tuning.best(tuned)["score"]
    rates = [record["rate"] for record in of(tuned) if record["score"] >= top - tolerance]
    return max(rates) / min(rates)


def epochs_to(level, tested):
    """The median epoch at which the validation score reaches a level, if most runs do.

    One that diverges later has not.
    """

    def first(record):
        scores = record["scores"] if record["status"] == "finished" else []
        epochs = (i + 1 for i, score in enumerate(scores) if (score or 0.0) >= level)
        return next(epochs, math.inf)

    reached = list(map(first, tested))
    median = statistics.median(reached) if reached else math.inf
    return median if math.isfinite(median) else None


def pairs(found):
    """The comparisons that are made: (method, what it is compared with, in which role)."""
    scored = [name for name, summary in found.items() if summary.scores]
    # Whatever is done to activations; but not what was tried afterwards, as no rival was.
    ours = [name for name in scored if tuning.without_base(name) in OURS]
    others = [name for name in scored if tuning.without_base(name) not in (*OURS, *families.NEXT)]
    chosen = []
    if ours and others:
        best = [max(names, key=lambda name: found[name].validation) for names in (ours, others)]
        chosen.append((*best, "best of all"))
    for base in dict.fromkeys(map(tuning.base_of, found)):
        rivals = [base, *(tuning.with_base(base, rival) for rival in RIVALS)]
        rivals = [rival for rival in rivals if rival in scored]
        for method in (*OURS, *families.NEXT):
            name = tuning.with_base(base, method)
            if name not in scored or not rivals:
                continue
            # The best on the test data itself: the choice that is hardest to beat.
            best_rival = max(rivals, key=lambda rival: found[rival].mean)
            others = {
                "alone": base,
                "best rival": best_rival,
            }
            if method in OURS:
                others["tuned"] = f"{base}, {families.TUNED}"
                others["Frobenius"] = tuning.with_base(base, families.FROBENIUS)
            if method == families.UNCENTERED:
                others["centered"] = tuning.with_base(base, families.NEWTON)
            if method == OURS[0]:
                # Matched to row equilibration, so that it says nothing of the others.
                others["matched"] = f"{base}, {families.MATCHED}"
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
    return mean, interval(differences), float(stats.ttest_1samp(differences, 0.0).pvalue)


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
                second = _scores([r for r in records if r["normalization"] == name], "test")
                values = [list(scores.values()) for scores in (first, second)]
                same = np.ptp(np.concatenate(values)) == 0.0
                p = 1.0 if same else float(stats.ttest_ind(*values, equal_var=False).pvalue)
                found.append(Agreement(family, optimizer, name, backend, first, second, p))
    if not found:
        return []
    corrected = stats.false_discovery_control([each.p for each in found])
    return [dataclasses.replace(each, p=float(p)) for each, p in zip(found, corrected, strict=True)]
