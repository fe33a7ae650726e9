"""A picture of one family of a comparison: scores, tuning and curves, for each optimizer."""

import evidence
import numpy as np
import settings
import tuning
import words
from evidence import OURS

COLORS = {
    "none": "tab:gray",
    f"none, {settings.TUNED}": "black",
    f"none, {settings.MATCHED}": "tab:brown",
    "row_equilibration": "tab:orange",
    "newton_orthogonalization": "tab:blue",
    "polynomial_preconditioner": "tab:green",
    "weight_normalization": "tab:pink",
}


def draw(family, cells):
    """A figure with a row for each optimizer.

    Args:
        family: A `settings.Family`.
        cells: {optimizer: (records, {name: evidence.Summary})}.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    names = max((list(found) for _, found in cells.values()), key=len)
    height = 0.24 * len(names) + 1.2
    figure, axes = plt.subplots(
        len(cells), 3, figsize=(13, height * len(cells)), layout="constrained", squeeze=False,
        width_ratios=(1.3, 1, 1),
    )  # fmt: skip
    for row, (optimizer, (records, found)) in zip(axes, cells.items(), strict=True):
        draw_scores(row[0], family, found)
        row[0].set_title(f"{optimizer}: five seeds at the chosen point", fontsize=10)
        draw_tuning(row[1], family, records)
        row[1].set_title(f"{optimizer}: the search, failures below", fontsize=10)
        draw_curves(row[2], family, records)
        row[2].set_title(f"{optimizer}: validation, median of five seeds", fontsize=10)
    for ax in axes.flat:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def draw_overview(compared):
    """A figure of the differences to the best rival, a row for each place it was measured in.

    Args:
        compared: What `evidence.comparisons` returns.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    cells = {method: words.comparisons_of(compared, method, "best rival") for method in OURS}
    keys = list(dict.fromkeys(key for cell in cells.values() for key in cell))
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(keys) + 1.4), layout="constrained")
    for shift, (method, cell) in enumerate(cells.items()):
        for key, comparison in cell.items():
            unit = evidence.TOLERANCE[settings.FAMILIES[key[0]].test_score]
            y = len(keys) - keys.index(key) - 0.22 * (shift - 1)
            axes.errorbar(
                comparison.difference / unit, y, xerr=comparison.interval / unit, fmt="o",
                color=COLORS[method], markersize=4.5, capsize=2,
                markerfacecolor="white" if comparison.outcome == "tie" else COLORS[method],
                label=method if key == keys[0] else None,
            )  # fmt: skip
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.set_major_formatter("{x:+g}")
    axes.set_yticks(range(len(keys), 0, -1), map(words.place, keys), fontsize=8)
    axes.set_xlabel("test score less that of the best rival, in per cent or half decibels")
    axes.set_title("right: better; filled: significant, after correction", fontsize=9)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if keys:
        axes.legend(
            fontsize=8, frameon=False, loc="upper center", ncols=3, bbox_to_anchor=(0.4, -0.12)
        )
    return figure


def draw_scores(axes, family, found):
    """Means with intervals, filled; at the default gain, hollow."""
    label, unit, _ = evidence.FORMS[family.test_score]
    names = list(found)[::-1]
    for place, name in enumerate(names):
        summary = found[name]
        color = COLORS.get(name, COLORS.get(tuning.method_of(name), "silver"))
        for scores, fill in ((summary.default, "white"), (summary.scores, color)):
            if scores:
                values = unit * np.array(list(scores.values()))
                axes.errorbar(
                    values.mean(), place, xerr=evidence.interval(values), fmt="o", color=color,
                    markerfacecolor=fill, capsize=2, markersize=5,
                )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel(f"{label}; hollow: at a gain of 1")
    # A method that fails is told by its place at the border, not by squeezing the others.
    means = sorted(unit * summary.mean for summary in found.values() if summary.scores)
    if means:
        span = max(means[-1] - means[len(means) // 2], 0.02 * abs(means[-1]), 1e-9)
        axes.set_xlim(max(means[0] - span, means[-1] - 6 * span), means[-1] + span)


def draw_tuning(axes, family, records):
    """Validation scores over learning rates; those far below the best as ticks at the border."""
    _, unit, _ = evidence.FORMS[family.test_score]
    searched = [r for r in records if r["phase"] in ("tune", "refine")]
    values = [unit * r["score"] for r in evidence.of(searched)]
    if values:
        top, middle = max(values), float(np.median(values))
        bottom = top - 1.5 * max(top - middle, 0.02 * top)
        axes.set_ylim(bottom, top + 0.1 * (top - bottom))
    for name, color in COLORS.items():
        runs = [(r["rate"], unit * r["score"]) for r in evidence.of(searched, normalization=name)]
        near = [run for run in runs if run[1] >= bottom]
        if near:
            axes.plot(*zip(*near, strict=True), "o", color=color, label=name, markersize=3)
        far = [(r["rate"], bottom) for r in searched if r["normalization"] == name]
        far = [(rate, bottom) for rate, _ in far if rate not in {rate for rate, _ in near}]
        if far:
            axes.plot(*zip(*far, strict=True), "|", color=color, markersize=9, clip_on=False)
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation score")


def draw_curves(axes, family, records):
    """Validation scores after each epoch."""
    _, unit, _ = evidence.FORMS[family.test_score]
    for name, color in COLORS.items():
        curves = [
            record["scores"] for record in evidence.of(records, normalization=name, phase="test")
        ]
        if curves:
            middle = unit * np.median(curves, axis=0)
            axes.plot(np.arange(1, len(middle) + 1), middle, color=color, label=name)
    axes.set(xlabel="epoch", ylabel="validation score")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if axes.lines:
        axes.legend(fontsize=7, frameon=False)
