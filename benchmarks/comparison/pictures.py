"""A picture of one family of a comparison: scores, tuning and curves, for each optimizer."""

import itertools

import numpy as np

from benchmarks.comparison import evidence, families, naming, sentences
from benchmarks.shared import plots

# Okabe's and Ito's colors, which all readers can tell apart.
COLORS = {
    families.PLAIN: "tab:gray",
    f"{families.PLAIN}, {families.TUNED}": "black",
    families.ORTHOGONAL: "#999933",
    families.ROWS: "#E69F00",
    families.NEWTON: "#0072B2",
    families.POLYNOMIAL: "#009E73",
    families.POLAR_EXPRESS: "#56B4E9",
    families.STORED: "#CC79A7",
    families.CENTERED_STORED: "#AA4499",
    families.UPDATES: "#D55E00",
    families.CENTERED_UPDATES: "#882255",
    families.STARTED_UPDATES: "#8B4513",
}

# Of wins, ties and losses, apart in lightness as well.
OUTCOMES = {"win": "#0072B2", "tie": "#E8E8E8", "loss": "#F0B060"}


def draw(family, cells, measured):
    """A figure with a row for each optimizer.

    Args:
        family: A `families.Family`.
        cells: {optimizer: (records, {name: evidence.Summary})}.
        measured: {optimizer: `times.Times`}.
    """
    plt = plots.pyplot()
    names = max((list(found) for _, found in cells.values()), key=len)
    height = 0.26 * len(names) + 1.2
    figure, axes = plt.subplots(
        len(cells), 3, figsize=(13, height * len(cells)), layout="constrained", squeeze=False,
        width_ratios=(1.3, 1, 1),
    )  # fmt: skip
    for row, (optimizer, (records, found)) in zip(axes, cells.items(), strict=True):
        draw_scores(row[0], family, found)
        row[0].set_title(f"{optimizer}: five seeds at the chosen point", fontsize=10)
        draw_tuning(row[1], family, records)
        row[1].set_title(f"{optimizer}: the search, failures below", fontsize=10)
        draw_curves(row[2], family, records, measured[optimizer])
        row[2].set_title(f"{optimizer}: validation, median of five seeds", fontsize=10)
    for ax in axes.flat:
        plots.tidy(ax)
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
        if (cells := sentences.comparisons_of(compared, method, "best rival"))
    }
    keys = list(dict.fromkeys(key for cells in columns.values() for key in cells))
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
    axes.set_xlabel("difference from the best baseline: points of accuracy or IoU, dB of PSNR")
    patches = [plt.Rectangle((0, 0), 1, 1, color=color) for color in OUTCOMES.values()]
    words = ("win", "tie: no significant difference", "loss")
    figure.legend(patches, words, fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    return figure


def draw_scores(axes, family, found):
    """Means with intervals, filled, and the seeds; at the default gain, hollow."""
    label, unit, _ = evidence.FORMS[family.test_score]
    names = list(found)[::-1]
    # A method that fails is told by an arrow at the border, not by squeezing the others.
    means = sorted(unit * summary.mean for summary in found.values() if summary.scores)
    low, high = 0.0, 1.0
    if means:
        span = max(means[-1] - means[len(means) // 2], 0.02 * abs(means[-1]), 1e-9)
        low, high = max(means[0] - span, means[-1] - 5 * span), means[-1] + span
    for place, name in enumerate(names):
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
    axes.set_xlabel(f"{label}\nmean, 95 % interval and seeds; hollow: at a gain of 1")


def color_of(name):
    """Of the method, whatever is done to activations; that of the network without any is gray."""
    base = naming.base_of(name)
    if name == base:
        return COLORS[families.PLAIN]
    own = name.replace(base, families.PLAIN, 1) if "," in name else naming.without_base(name)
    return COLORS.get(own, "silver")


def draw_tuning(axes, family, records):
    """Validation scores over learning rates; those far below the best as ticks at the border."""
    _, unit, _ = evidence.FORMS[family.test_score]
    searched = [
        record
        for record in records
        if record["phase"] in ("tune", "refine") and record["normalization"] in COLORS
    ]
    values = [unit * record["score"] for record in evidence.of(searched)]
    axes.set(xlabel="learning rate", ylabel="validation score")
    make_logarithmic(axes)
    if not values:
        return
    top, middle = max(values), float(np.median(values))
    bottom = top - 1.5 * max(top - middle, 0.02 * top)
    axes.set_ylim(bottom, top + 0.1 * (top - bottom))
    for name, color in COLORS.items():
        own = [record for record in searched if record["normalization"] == name]
        near = [r for r in evidence.of(own) if unit * r["score"] >= bottom]
        far = [r for r in own if r not in near]
        rates, heights = [r["rate"] for r in near], [unit * r["score"] for r in near]
        axes.plot(rates, heights, "o", color=color, markersize=3)
        axes.plot([r["rate"] for r in far], [bottom] * len(far), "|", color=color, markersize=9)


def make_logarithmic(axes):
    """Ticks at 1 and 3 times powers of ten."""
    axes.set_xscale("log")
    # A range of less than two decades has too few powers of ten, and too many of their parts.
    axes.xaxis.get_major_locator().set_params(subs=(1.0, 3.0))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.minorticks_off()


def draw_curves(axes, family, records, measured):
    """Validation scores after each epoch, over seconds of training where those were measured."""
    _, unit, _ = evidence.FORMS[family.test_score]
    tested = {
        name: own
        for name in COLORS
        if (own := evidence.of(records, normalization=name, phase="test"))
    }
    in_seconds = all(map(measured.of_step, tested))
    curves = {}
    for name, own in tested.items():
        curves[name] = unit * np.median([record["scores"] for record in own], axis=0)
        epochs = np.arange(1, len(curves[name]) + 1)
        seconds = epochs * measured.steps * measured.of_step(name) if in_seconds else epochs
        axes.plot(seconds, curves[name], color=COLORS[name], label=name)
    axes.set(xlabel="epoch", ylabel="validation score")
    if in_seconds:
        axes.set_xlabel("seconds of training on one core")
        make_logarithmic(axes)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    if curves:
        top = max(curve.max() for curve in curves.values())
        # What fails leaves the picture at its lower border.
        bottom = min(curve[0] for curve in curves.values() if curve[-1] > 0.9 * top)
        axes.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
        axes.legend(fontsize=7, framealpha=0.85, edgecolor="none", loc="lower right")
