"""The pictures of a comparison: wins and losses, scores, and validation over seconds."""

import itertools

import numpy as np

from benchmarks.comparison import evidence, families, naming, sentences
from benchmarks.shared import plots

# Color and line style of each configuration. Those with a common part have a common color.
LOOKS = {
    families.PLAIN: (plots.GRAY, "-"),
    f"{families.PLAIN}, {families.TUNED}": (plots.BLACK, "-"),
    families.ORTHOGONAL: (plots.BLACK, ":"),
    families.ROWS: (plots.ORANGE, "-"),
    families.NEWTON: (plots.BLUE, "-"),
    families.POLYNOMIAL: (plots.BLUE, ":"),
    families.POLAR_EXPRESS: (plots.SKY, "--"),
    families.STORED: (plots.PURPLE, "-"),
    families.CENTERED_STORED: (plots.PURPLE, ":"),
    families.UPDATES: (plots.VERMILION, "-"),
    families.CENTERED_UPDATES: (plots.VERMILION, ":"),
    families.STARTED_UPDATES: (plots.VERMILION, "--"),
}
# One of each kind of conditioning, and its controls.
IN_CURVES = (
    families.PLAIN,
    families.ORTHOGONAL,
    families.ROWS,
    families.NEWTON,
    families.STORED,
    families.UPDATES,
)

# Of wins, ties and losses, apart in lightness as well.
OUTCOMES = {"win": "#0072B2", "tie": "#E8E8E8", "loss": "#F0B060"}


def scores(title, family, cells):
    """A figure of test scores, with a panel for each optimizer.

    Args:
        title: Name of the network.
        family: A `families.Family`.
        cells: {optimizer: {name: evidence.Summary}}.
    """
    plt = plots.pyplot()
    names = list(dict.fromkeys(name for found in cells.values() for name in found))
    # Grouped by the normalization of activations, which lines separate.
    names.sort(key=lambda name: naming.base_of(name) != families.PLAIN)
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4.2 * len(cells) + 2, 0.21 * len(names) + 1.2),
        layout="constrained", squeeze=False, sharey=True,
    )  # fmt: skip
    for panel, (optimizer, found) in zip(axes.flat, cells.items(), strict=True):
        draw_scores(panel, family, found, names[::-1])
        panel.set_title(optimizer, fontsize=10)
        plots.tidy(panel)
    label, _, _ = evidence.FORMS[family.test_score]
    figure.suptitle(f"{title}: {label.partition(',')[0]} of all configurations", fontsize=11)
    figure.supxlabel(
        f"{label}: mean, 95 % confidence interval and five seeds. Hollow: at a gain of 1. "
        "Triangle: mean left of the axis.\n"
        "Light gray: baselines, controls and variants. A line separates networks with "
        "normalization layers.",
        fontsize=10,
    )
    return figure


def curves(title, family, cells, measured):
    """A figure of validation scores over seconds of training, with a panel for each optimizer.

    Args:
        title: Name of the network.
        family: A `families.Family`.
        cells: {optimizer: records}.
        measured: {optimizer: `times.Times`}.
    """
    plt = plots.pyplot()
    figure, axes = plt.subplots(
        1, len(cells), figsize=(4.6 * len(cells), 3.8), layout="constrained", squeeze=False
    )
    for panel, (optimizer, records) in zip(axes.flat, cells.items(), strict=True):
        draw_curves(panel, family, records, measured[optimizer])
        panel.set_title(optimizer, fontsize=10)
        plots.tidy(panel)
    label, _, _ = evidence.FORMS[family.test_score]
    figure.suptitle(f"{title}: validation during training, median of five seeds", fontsize=11)
    axes[0, 0].set_ylabel(f"validation score, {label.removeprefix('test ')}")
    lines = {line.get_label(): line for panel in axes.flat for line in panel.get_lines()}
    order = [name for name in IN_CURVES if name in lines]
    figure.legend(
        [lines[name] for name in order], order, fontsize=9, frameon=False,
        loc="outside lower center", ncols=3,
        title="Networks without normalization layers. What fails lies below the axis.",
        title_fontsize=9,
    )  # fmt: skip
    return figure


def draw_overview(compared):
    """A figure of wins, ties and losses: a row for each setting, a column for each method.

    Args:
        compared: What `significance.comparisons` returns.
    """
    plt = plots.pyplot()
    columns = {
        method: cells
        for method in families.OURS
        if (cells := sentences.comparisons_of(compared, method, "best baseline"))
    }
    keys = {key for cells in columns.values() for key in cells}
    keys = sorted(keys, key=_order)
    figure, axes = plt.subplots(figsize=(9, 0.24 * len(keys) + 2.6), layout="constrained")
    for x, cells in enumerate(columns.values()):
        for key, comparison in cells.items():
            y = keys.index(key)
            color = OUTCOMES[comparison.outcome]
            axes.add_patch(plt.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=color))
            number = sentences.unit_of(key[0]) * comparison.difference
            dark = comparison.outcome == "win"
            axes.text(
                x, y, f"{number:+.1f}", color="white" if dark else "black", fontsize=8,
                ha="center", va="center",
            )  # fmt: skip
    axes.set_xlim(-0.5, max(len(columns), 1) - 0.5)
    axes.set_ylim(max(len(keys), 1) - 0.5, -0.5)
    labels = [method.replace("+", " +\n").replace("_", " ") for method in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=8, rotation=40, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(keys)), map(sentences.place, keys), fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(
        "difference from the best baseline: points of accuracy or IoU, dB of PSNR\n"
        "(large differences without significance: some seeds fail)"
    )
    patches = [plt.Rectangle((0, 0), 1, 1, color=color) for color in OUTCOMES.values()]
    words = ("win", "tie: no significant difference", "loss")
    figure.legend(patches, words, fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    return figure


def _order(key):
    family, optimizer, base = key
    places = [*families.FAMILIES].index(family), families.OPTIMIZERS.index(optimizer)
    return *places, base != families.PLAIN


def draw_scores(axes, family, found, names):
    """Means with intervals, filled, and the seeds; at the default gain, hollow."""
    _, unit, _ = evidence.FORMS[family.test_score]
    # A method that fails is told by an arrow at the border, not by squeezing the others.
    means = sorted(unit * summary.mean for summary in found.values() if summary.scores)
    low, high = 0.0, 1.0
    if means:
        span = max(means[-1] - means[len(means) // 2], 0.02 * abs(means[-1]), 1e-9)
        low, high = max(means[0] - span, means[-1] - 5 * span), means[-1] + span
    for place, name in enumerate(names):
        if name not in found:
            continue
        color = color_of(name)
        for scores, shift, fill in (
            (found[name].default, 0.2, "white"),
            (found[name].scores, 0.0, color),
        ):
            values = unit * np.array(list(scores.values()))
            if len(values) and values.mean() < low:
                axes.plot(low, place - shift, "<", color=color, markerfacecolor=fill, clip_on=False)
            elif len(values):
                axes.errorbar(
                    values.mean(), place - shift, xerr=evidence.interval(values), fmt="o",
                    color=color, markerfacecolor=fill, capsize=2, markersize=5,
                )  # fmt: skip
            if not shift:
                axes.plot(values, np.full(len(values), place), ".", color="black", markersize=2)
    for place, (name, above) in enumerate(itertools.pairwise(names)):
        if naming.base_of(name) != naming.base_of(above):
            axes.axhline(place + 0.5, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlim(low, high)


def color_of(name):
    """Of the method, whatever is done to activations; that of the network without any is gray."""
    base = naming.base_of(name)
    if name == base:
        return LOOKS[families.PLAIN][0]
    own = name.replace(base, families.PLAIN, 1) if "," in name else naming.without_base(name)
    return LOOKS[own][0] if own in LOOKS else "silver"


def make_logarithmic(axes):
    """Ticks at 1, 2 and 5 times powers of ten."""
    axes.set_xscale("log")
    # A range of less than two decades has too few powers of ten, and too many of their parts.
    axes.xaxis.get_major_locator().set_params(subs=(1.0, 2.0, 5.0))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.minorticks_off()


def draw_curves(axes, family, records, measured):
    """Validation scores after each epoch, over seconds of training where those were measured."""
    _, unit, _ = evidence.FORMS[family.test_score]
    tested = {
        name: own
        for name in IN_CURVES
        if (own := evidence.of(records, normalization=name, phase="test"))
    }
    in_seconds = all(map(measured.of_step, tested))
    curves = {}
    for name, own in tested.items():
        curves[name] = unit * np.median([record["scores"] for record in own], axis=0)
        epochs = np.arange(1, len(curves[name]) + 1)
        seconds = epochs * measured.steps * measured.of_step(name) if in_seconds else epochs
        color, style = LOOKS[name]
        axes.plot(seconds, curves[name], color=color, linestyle=style, label=name)
    axes.set_xlabel("epoch")
    if in_seconds:
        axes.set_xlabel("seconds of training on one core")
        make_logarithmic(axes)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    if curves:
        top = max(curve.max() for curve in curves.values())
        # What fails leaves the picture at its lower border.
        bottom = min(curve[len(curve) // 4] for curve in curves.values() if curve[-1] > 0.9 * top)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
