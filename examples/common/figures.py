"""Figures and curves of training."""

import numpy as np

from common.training import Run


def figure(columns: int, rows: int = 1, size: float = 3.8, **kwargs):
    """A figure and its axes, drawn without a display."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt.subplots(
        rows, columns, figsize=(size * columns, size * rows), layout="constrained", **kwargs
    )


def draw_curves(axes, runs: dict[str, Run], score: str, label: str, **settings) -> None:
    """A score after each epoch, a line for each run."""
    # Lines that lie on one another stay visible by their widths.
    for index, (name, run) in enumerate(runs.items()):
        values = run.history[score]
        width = 1.5 + 1.5 * (len(runs) - 1 - index) / len(runs)
        axes.plot(np.arange(1, len(values) + 1), values, label=name, linewidth=width)
    axes.set(xlabel="epoch", ylabel=label, **settings)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
