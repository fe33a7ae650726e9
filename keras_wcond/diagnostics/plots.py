"""Pictures. This is the one module that draws. It needs Matplotlib, an optional package."""

import os
import pathlib
import types
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Figure


def pyplot() -> types.ModuleType:
    """`matplotlib.pyplot`, or an error that states how to install it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Expected Matplotlib to be installed, which draws the pictures. Install it with "
            "`pip install matplotlib`, or `pip install 'keras_wcond[plots]'`."
        ) from error
    module: types.ModuleType = plt
    return module


def draw_spectra(
    spectra: dict[str, tuple[np.ndarray, np.ndarray]], path: str | os.PathLike[str] | None = None
) -> "Figure":
    """Draws the ratios of singular values to the largest, raw and effective side by side."""
    plt = pyplot()
    figure, panels = plt.subplots(
        1, 2, figsize=(11, 4.2), layout="constrained", sharey=True, sharex=True
    )
    colors = plt.get_cmap("viridis")(np.linspace(0.0, 0.92, len(spectra)))
    for panel, title, kind in zip(panels, ("as stored", "as multiplied by"), (0, 1), strict=True):
        for color, (name, both) in zip(colors, spectra.items(), strict=True):
            for i, values in enumerate(both[kind]):
                relative = values / values[0] if values[0] > 0.0 else values
                if i < 8:  # Some matrices of a stack are enough to see its spectrum.
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


def saved(figure: "Figure", path: str | os.PathLike[str] | None = None) -> "Figure":
    """The figure, saved if a path is given."""
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    pyplot().close(figure)
    return figure


def _bar_of_kernels(
    plt: types.ModuleType, figure: "Figure", panels: np.ndarray, count: int
) -> None:
    """Adds a color bar, for more kernels than a legend can list."""
    order = plt.cm.ScalarMappable(cmap=plt.get_cmap("viridis"))
    order.set_clim(1, count / 0.92)
    bar = figure.colorbar(order, ax=panels, label="kernel, in the model's order")
    bar.ax.set_ylim(1, count)


def _tidy(axes: "Axes") -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def draw_loss_lines(
    distances: np.ndarray,
    losses: dict[str, np.ndarray],
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draws the loss along each direction."""
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
    path: str | os.PathLike[str] | None = None,
) -> "Figure":
    """Draws each measure over epochs or steps, with a line per kernel."""
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
