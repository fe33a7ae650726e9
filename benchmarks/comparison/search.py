"""Where methods are tuned: points of one low-discrepancy sequence, which all of them share."""

import dataclasses
import functools
import math

from scipy.stats import qmc

from benchmarks.comparison import families, naming

POINTS = 16
# Points in each further stretch of a range, as dense as before over a factor of √10.
POINTS_MORE = 4
FACTOR = math.sqrt(10.0)
# Runs at and around the best point, up to these factors from it in rate and in scale.
REFINEMENTS = 6
REACH = (2.0, 1.5)
# A run of the search stops after this part of its epochs if its best score is less than this part
# of what the best run before it had at the same epoch.
PATIENCE, HOPELESS = 0.25, 0.5


@dataclasses.dataclass(frozen=True)
class Point:
    """Where a model is trained.

    Args:
        rate: Learning rate.
        scale: Initial scale of plain networks, gain of conditioned ones.
        mode: One of `families.MODES`, of `families.PENALTIES` for the regularizer, or None where
            there is neither. Of a network with matched scale, those of row equilibration.
    """

    rate: float
    scale: float = 1.0
    mode: str | None = None


@functools.cache
def sequence(count, dimensions=3, seed=0):
    """The first points of a scrambled Sobol sequence in [0, 1)^dimensions, as tuples."""
    size = 2 ** math.ceil(math.log2(count))
    points = qmc.Sobol(dimensions, seed=seed).random(size)[:count]
    return [tuple(point) for point in points.tolist()]


def around(place):
    """A place in the ranges, and further ones around it.

    Args:
        place: (rate, scale).

    Returns:
        A list of `REFINEMENTS` such pairs, the first of which is the place itself; the factors
        between them are the same for every method.
    """
    offsets = [
        tuple(reach ** (2.0 * x - 1.0) for reach, x in zip(REACH, point, strict=True))
        for point in sequence(REFINEMENTS - 1, dimensions=2)
    ]
    return [(place[0] * rate, place[1] * scale) for rate, scale in [(1.0, 1.0), *offsets]]


def coordinates(family, optimizer, growths=()):
    """Where all methods are tuned, and the ranges that this covers.

    Args:
        family: A `families.Family`.
        optimizer: Name of the optimizer.
        growths: Stretches that were added, in their order: ("rate" or "scale", -1 or 1).

    Returns:
        A list of (rate, scale, number in [0, 1) for the mode); and {"rate": (low, high),
        "scale": (low, high)}.
    """
    start = {"rate": family.rates[optimizer], "scale": family.scales}
    found = [_within(start, point) for point in sequence(POINTS)]
    ranges = dict(start)
    for name, side in growths:
        low, high = ranges[name]
        stretch = (high, high * FACTOR) if side > 0 else (low / FACTOR, low)
        ranges[name] = (min(low, stretch[0]), max(high, stretch[1]))
        points = sequence(len(found) + POINTS_MORE)[len(found) :]
        found += [_within({**start, name: stretch}, point) for point in points]
    return found, ranges


def _within(ranges, point):
    rate, scale = (
        low * (high / low) ** fraction
        for (low, high), fraction in zip(ranges.values(), point, strict=False)
    )
    return rate, scale, point[2]


def chosen_point(family, normalization, coordinates, matched=None):
    """The point of coordinates for one method; what it has no use for stays at its default.

    Args:
        family: A `families.Family`.
        normalization: Name of the method.
        coordinates: (rate, scale, number for the mode).
        matched: The record of row equilibration that a network of matched scale starts as.
    """
    rate, scale, mode = coordinates
    if matched is not None:
        return Point(rate, matched["scale"], matched["mode"])
    if not has_scale(family, normalization):
        return Point(rate)
    modes = modes_of(normalization)
    if not modes:
        return Point(rate, scale)
    return Point(rate, scale, modes[int(mode * len(modes))])


def modes_of(normalization):
    """The modes of the gain that differ from each other for one method, or the penalties."""
    if naming.is_regularized(normalization):
        return families.PENALTIES
    if naming.is_plain(normalization) or normalization.endswith("weight_normalization"):
        return ()
    if normalization.endswith("+constraint"):
        # Its stored rows are of unit norm from the first update on, to keep which is a gain of 1.
        return tuple(mode for mode in families.MODES if mode != "kernel_norm")
    return families.MODES


def has_scale(family, normalization):
    """Whether a method's scale is tuned: not that of the networks alone and of matched ones."""
    alone = (families.PLAIN, *family.activations)
    return normalization not in alone and not naming.is_matched(normalization)


def is_hopeless(scores, best, epochs):
    """Whether a run of the search stops.

    Args:
        scores: Its validation scores after each epoch so far, None where one was not finite.
        best: Those of the best run before it, or None.
        epochs: How many epochs a whole run has.
    """
    count = len(scores)
    if best is None or count < PATIENCE * epochs:
        return False
    return max(score or 0.0 for score in scores) < HOPELESS * best[count - 1]
