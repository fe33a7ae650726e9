"""What the records of a comparison say: means, intervals, paired tests, bands, epochs.

All functions are pure, and take the records of one family and optimizer.
"""

import dataclasses
import math
import statistics

import numpy as np
import settings
import tuning
from scipy import stats

RIVALS = ("weight_normalization", "weight_standardization", "spectral_normalization")
OURS = ("row_equilibration", "newton_orthogonalization", "polynomial_preconditioner")
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
        point: The record that won the tuning.
        scores: On the test data, by seed.
        default: The same at the default gain and the plain network's rate.
        at_edge: Whether the chosen point lies at an edge of the ranges.
        band: Factor between the lowest and the highest rate among the runs of the tuning
            that come within the tolerance of the best.
        diverged: How many runs of the tuning did not finish.
        epochs: Mean number of epochs until validation reaches the plain network's last
            score, or None where most seeds do not reach it.
        loss: Mean of the last training losses.
        condition_number: Median over seeds of the median over kernels.
    """

    normalization: str
    point: dict
    scores: dict[int, float]
    default: dict[int, float]
    at_edge: bool
    band: float
    diverged: int
    epochs: float | None
    loss: float | None
    condition_number: float | None

    @property
    def mean(self):
        """Of the scores; not a number where there are none."""
        return statistics.mean(self.scores.values()) if self.scores else math.nan


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One method against another, paired by seed.

    Args:
        first: Name of the method.
        second: Name of what it is compared with.
        difference: Mean of the first's scores less the second's.
        p: Of a paired t-test, corrected for the number of comparisons.
    """

    first: str
    second: str
    difference: float
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


def summaries(family, optimizer, records):
    """A `Summary` of each method that was tuned, by name."""
    growths, _ = tuning.growths_of(family, optimizer, records)
    _, ranges = tuning.coordinates(family, optimizer, growths)
    level = _last_score(records, settings.PLAIN)
    found = {}
    for name in family.normalizations():
        own = [record for record in records if record["normalization"] == name]
        tuned = [record for record in own if record["phase"] == "tune"]
        point = tuning.best(tuned)
        if point is None:
            continue
        tested = [r for r in own if r["phase"] == "test" and r["status"] == "finished"]
        default = [r for r in own if r["phase"] == "default" and r["status"] == "finished"]
        found[name] = Summary(
            name,
            point,
            {record["seed"]: record["test"] for record in tested},
            {record["seed"]: record["test"] for record in default},
            at_edge(point, ranges),
            band(tuned, TOLERANCE[family.test_score]),
            sum(record["status"] != "finished" for record in tuned),
            epochs_to(level, tested),
            statistics.mean(r["losses"][-1] for r in tested) if tested else None,
            statistics.median(r["condition_numbers"][1] for r in tested) if tested else None,
        )
    return found


def _last_score(records, name):
    tested = [
        record["score"]
        for record in records
        if record["normalization"] == name
        and record["phase"] == "test"
        and record["status"] == "finished"
    ]
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
    rates = [
        record["rate"]
        for record in tuned
        if record["status"] == "finished" and record["score"] >= top - tolerance
    ]
    return max(rates) / min(rates)


def epochs_to(level, tested):
    """The mean epoch at which the validation score reaches a level, if most runs do."""
    reached = [
        next((i + 1 for i, score in enumerate(record["scores"]) if score >= level), None)
        for record in tested
    ]
    known = [epoch for epoch in reached if epoch is not None]
    return statistics.mean(known) if 2 * len(known) > len(reached) else None


def base_of(name):
    """The normalization of activations in a name, "none" where there is none."""
    return name.partition("+")[0] if "+" in name or name in ("batch", "layer") else "none"


def pairs(found):
    """The comparisons that are made: (method, what it is compared with, in which role)."""
    chosen = []
    for base in dict.fromkeys(map(base_of, found)):
        prefix = "" if base == "none" else f"{base}+"
        rivals = [base, *(prefix + rival for rival in RIVALS)]
        rivals = [found[rival] for rival in rivals if rival in found and found[rival].scores]
        for method in OURS:
            name = prefix + method
            if name not in found or not found[name].scores:
                continue
            chosen.append((name, base, "alone"))
            if base == "none":
                chosen += [
                    (name, control, role)
                    for control, role in zip(
                        settings.CONTROLS, ("matched", "tuned", "Frobenius"), strict=True
                    )
                ]
            # The best on the test data itself: the choice that is hardest to beat.
            best_rival = max(rivals, key=lambda summary: summary.mean)
            chosen.append((name, best_rival.normalization, "best rival"))
    return [pair for pair in chosen if pair[1] in found and found[pair[1]].scores]


def comparisons(found):
    """All comparisons by (method, role), corrected together after Benjamini and Hochberg."""
    chosen = pairs(found)
    results = [
        paired_test(found[first].scores, found[second].scores) for first, second, _ in chosen
    ]
    if not results:
        return {}
    corrected = stats.false_discovery_control([p for _, p in results])
    return {
        (first, role): Comparison(first, second, difference, float(p))
        for (first, second, role), (difference, _), p in zip(
            chosen, results, corrected, strict=True
        )
    }


def paired_test(first, second):
    """The mean difference of two sets of scores by seed, and the p of a paired t-test."""
    seeds = sorted(first.keys() & second.keys())
    differences = np.array([first[seed] - second[seed] for seed in seeds])
    if len(seeds) < 2:
        return (float(differences.mean()) if len(seeds) else math.nan), 1.0
    if np.ptp(differences) == 0.0:
        return float(differences.mean()), 1.0 if differences[0] == 0.0 else 0.0
    return float(differences.mean()), float(stats.ttest_1samp(differences, 0.0).pvalue)
