"""What the records of a comparison say of each method: means, intervals, bands, epochs.

All functions are pure, and take the records of one family and optimizer.
"""

import dataclasses
import math
import statistics

from scipy import stats

from benchmarks.comparison import families, naming, search, tuning

# What counts as the same quality, in units of the score.
TOLERANCE = {"accuracy": 0.01, "IoU": 0.01, "PSNR": 0.5}
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
        diverged: How many of these diverged.
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
    _, ranges = search.coordinates(family, optimizer, growths)
    level = _last_score(records, families.PLAIN)
    found = {}
    for name in family.normalizations(optimizer):
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
            scores=scores_of(tested, "test"),
            validation=_mean(scores_of(tested, "score").values()),
            default=scores_of(default, "test"),
            failed=len(tested) - len(finished),
            default_failed=len(default) - len(of(default)),
            at_edge=not naming.is_matched(name) and at_edge(point, ranges),
            band=band(tuned, TOLERANCE[family.test_score]),
            searched=len(tuned) + len(refined),
            diverged=sum(r["status"] not in ("finished", "stopped") for r in tuned + refined),
            epochs=epochs_to(level, tested),
            loss=_median(record["losses"][-1] for record in finished),
            condition_number=_median(record["condition_numbers"][1] for record in finished),
            curvature=_median(record.get("largest_eigenvalue") for record in finished),
        )
    return found


def searches_run_in_full(everything):
    """How many searches have no stopped run, and in how many stopping would change the best point.

    Args:
        everything: {(family, optimizer): records}.
    """
    count = changed = 0
    for (name, _), records in everything.items():
        epochs = families.FAMILIES[name].options().epochs
        searches = {}
        for record in tuning.latest(records):
            if record["phase"] == "tune":
                searches.setdefault(record["normalization"], []).append(record)
        for own in searches.values():
            if any(record["status"] == "stopped" for record in own) or tuning.best(own) is None:
                continue
            count += 1
            changed += _best_if_stopped(own, epochs) is not tuning.best(own)
    return count, changed


def _best_if_stopped(searched, epochs):
    """The best record of a search if hopeless runs had been stopped."""
    best = None
    for record in sorted(searched, key=lambda record: record["index"]):
        scores = record["scores"]
        counts = range(1, len(scores) + 1)
        known = best and best["scores"]
        if not any(search.is_hopeless(scores[:count], known, epochs) for count in counts):
            best = tuning.best([*([best] if best else []), record])
    return best


def scores_of(records, name):
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
