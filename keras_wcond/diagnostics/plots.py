"""Pictures; the one module that draws, with Matplotlib, which is not installed by default."""

import pathlib
from typing import Any

import numpy as np


def pyplot() -> Any:
    """`matplotlib.pyplot`, or an error that says how to get it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Expected Matplotlib to be installed, which draws the pictures. Install it with "
            "`pip install matplotlib`, or `pip install 'keras_wcond[plots]'`."
        ) from error
    return plt


def draw_spectra(spectra: dict[str, tuple[np.ndarray, np.ndarray]], path: Any = None) -> Any:
    """Singular values over the largest, by their relative index: raw beside effective."""
    plt = pyplot()
    figure, panels = plt.subplots(
        1, 2, figsize=(11, 4.2), layout="constrained", sharey=True, sharex=True
    )
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.92, len(spectra)))
    for panel, title, kind in zip(panels, ("as stored", "as multiplied by"), (0, 1), strict=True):
        for color, (name, both) in zip(colors, spectra.items(), strict=True):
            for i, values in enumerate(both[kind]):
                relative = values / values[0] if values[0] > 0.0 else values
                if i < 8:  # Of a stack, some are enough to see.
                    panel.plot(
                        np.linspace(0.0, 1.0, len(values)),
                        np.maximum(relative, 1e-9),
                        color=color,
                        linewidth=1.2,
                        alpha=0.8,
                        label=name if i == 0 else None,
                        marker="o" if len(values) == 1 else None,
                    )
        panel.set(yscale="log", xlabel="index / number of singular values")
        panel.set_title(f"Kernels {title}", fontsize=11)
        _tidy(panel)
    panels[0].set_ylabel("σ / σ_max")
    if len(spectra) <= 12:
        panels[1].legend(fontsize=8, loc="lower left")
    else:
        _bar_of_kernels(plt, figure, panels, len(spectra))
    return saved(figure, path)


def saved(figure: Any, path: Any = None) -> Any:
    """The figure, saved where a path is given."""
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    pyplot().close(figure)
    return figure


def _bar_of_kernels(plt, figure, panels, count):
    """What the colors stand for, where there are too many kernels for a legend."""
    order = plt.cm.ScalarMappable(cmap=plt.get_cmap("viridis"))
    order.set_clim(1, count / 0.92)
    bar = figure.colorbar(order, ax=panels, label="kernel, in the model's order")
    bar.ax.set_ylim(1, count)


def _tidy(axes):
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_loss_lines(distances: np.ndarray, losses: dict[str, np.ndarray], path: Any = None) -> Any:
    """The loss along each direction."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, values in losses.items():
        is_gradient = name == "gradient"
        color = "tab:red" if is_gradient else None
        axes.plot(distances, values, label=name, color=color, linewidth=2.2 if is_gradient else 1.2)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set(xlabel="distance along the direction, over the norm of the weights", ylabel="loss")
    if min(np.nanmin(values) for values in losses.values()) > 0.0:
        axes.set_yscale("log")
    axes.legend(fontsize=9)
    _tidy(axes)
    return saved(figure, path)


def draw_measurements(
    records: list[dict[str, Any]],
    measures: tuple[str, ...],
    unit: str,
    seconds: float,
    path: Any = None,
) -> Any:
    """Each measure over epochs or steps, a line per kernel."""
    plt = pyplot()
    kernels = list(dict.fromkeys(record["kernel"] for record in records))
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.92, len(kernels)))
    columns = len(measures)
    figure, panels = plt.subplots(1, columns, figsize=(3.4 * columns, 3.6), layout="constrained")
    for panel, measure in zip(panels, measures, strict=True):
        for color, kernel in zip(colors, kernels, strict=True):
            own = [record for record in records if record["kernel"] == kernel]
            values = [record[measure] if np.isfinite(record[measure]) else np.nan for record in own]
            panel.plot(
                [record[unit] for record in own],
                values,
                color=color,
                marker="." if len(own) < 12 else None,
                linewidth=1.2,
                label=kernel,
            )
        panel.set(yscale="log", xlabel=unit)
        panel.set_title(measure.replace("_", " "), fontsize=10)
        panel.xaxis.get_major_locator().set_params(integer=True)
        _tidy(panel)
    if len(kernels) <= 12:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
        )
    else:
        _bar_of_kernels(plt, figure, panels, len(kernels))
    measurements = len(records) // max(1, len(kernels))
    cost = f"{measurements} measurements in {seconds:.1f} s"
    figure.suptitle(cost, fontsize=9, x=0.99, ha="right")
    return saved(figure, path)
