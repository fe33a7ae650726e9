"""How much of a gain is the start, the scale, the centering, and the spectrum during training.

All functions are pure, and take what `evidence.summaries` and `significance.comparisons` return.
"""

import dataclasses

from benchmarks.comparison import evidence, families, naming

# Methods that narrow spectra: forward, in what is stored, or of the updates.
METHODS = tuple(method for method in families.OURS if method != families.ROWS)


@dataclasses.dataclass(frozen=True)
class Gain:
    """What a method gains over the network alone, in the unit of the score.

    Args:
        key: Family, optimizer and normalization of activations.
        method: Name of the method.
        plain: Name of the network alone.
        start: Name of the plain network that starts from the method's kernels.
        total: Mean score less that of the network alone.
        is_win: Whether that is significant.
        of_start: What the plain network gains that starts from the method's kernels.
        of_scale: What the plain network of tuned scale gains.
        of_centering: What weight standardization gains, which centers and scales rows.
        of_spectrum: What the method has over the best of these and of the network alone: the effect
            of the spectrum of its kernels, or of its updates.
        cheapest: Name of the configuration that comes within the interval of the method's mean
            and whose steps take the least time, or None where times are unknown.
    """

    key: tuple[str, str, str]
    method: str
    plain: str
    start: str
    total: float
    is_win: bool
    of_start: float
    of_scale: float
    of_centering: float
    of_spectrum: float
    cheapest: str | None

    @property
    def share_of_start(self):
        """The part of the gain that the start has alone."""
        return self.of_start / self.total


def gains(found, compared, times):
    """A `Gain` of each method that narrows spectra, in each place.

    Args:
        found: {(family, optimizer): {name: evidence.Summary}}.
        compared: {(family, optimizer): {(name, role): significance.Comparison}}.
        times: {(family, optimizer): `times.Times`}.
    """
    return [
        gain
        for where, cell in found.items()
        for base in dict.fromkeys(map(naming.base_of, cell))
        for method in METHODS
        if (gain := gain_of(where, base, method, cell, compared.get(where, {}), times))
    ]


def gain_of(where, base, method, cell, compared, times):
    """The `Gain` of one method, or None where it or a control was not tested."""
    name = naming.with_base(base, method)
    controls = {
        "start": naming.start_of(name),
        "scale": f"{base}, {families.TUNED}",
        "centering": naming.with_base(base, families.CENTERING),
    }
    if any(each not in cell or not cell[each].scores for each in (name, base, *controls.values())):
        return None
    comparison = compared.get((name, "alone"))
    of = {role: cell[each].mean - cell[base].mean for role, each in controls.items()}
    total = cell[name].mean - cell[base].mean
    return Gain(
        key=(*where, base),
        method=name,
        plain=base,
        start=controls["start"],
        total=total,
        is_win=comparison is not None and comparison.outcome == "win",
        of_start=of["start"],
        of_scale=of["scale"],
        of_centering=of["centering"],
        of_spectrum=total - max(0.0, *of.values()),
        cheapest=cheapest(cell, name, times.get(where)),
    )


def cheapest(cell, name, times):
    """The configuration with the shortest step whose mean lies within the interval of a method's.

    Args:
        cell: {name: evidence.Summary}.
        name: Name of the method.
        times: `times.Times`, or None.
    """
    level = cell[name].mean - evidence.interval(cell[name].scores.values())
    known = {
        each: times.of_step(each)
        for each, summary in cell.items()
        if times and summary.scores and summary.mean >= level and times.of_step(each)
    }
    return min(known, key=lambda each: (known[each], -cell[each].mean), default=None)
