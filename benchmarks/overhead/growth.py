"""How the cost of row equilibration grows with width, batch and depth, beside what it must cost.

Three sweeps of Dense networks, each point the training step with row equilibration over the plain
step in the same round. The floor is what moving the weights takes: one read of each kernel forward
and one fused read, change and write backward, three kernels in all, over the bandwidth that this
machine has for arrays of that size, over the seconds of the plain step. A power law is fitted to
each sweep by least squares of logarithms.

Appends to benchmarks/results/overhead/growth.jsonl, a line for each point; what is there already is
not measured again. `python -m benchmarks.overhead.report` draws and tabulates the lines of all
backends.
"""

import concurrent.futures
import os
import statistics
import time

import numpy as np

from benchmarks.overhead import networks, steps
from benchmarks.shared import arguments, environment, markdown, plots, records, timing

METHOD = "row_equilibration"
SWEEPS = {
    "width": [(width, 128, 3) for width in (128, 256, 512, 1024, 2048, 4096)],
    "batch": [(1024, batch, 3) for batch in (8, 32, 128, 512, 2048)],
    "depth": [(512, 128, depth) for depth in (1, 2, 4, 8, 16)],
}
FIXED = {
    "width": "batch 128, 3 layers",
    "batch": "width 1024, 3 layers",
    "depth": "width 512, batch 128",
}
UNITS = {"width": 0, "batch": 1, "depth": 2}
KERNELS_MOVED = 3


def bandwidth(size, repeats=10):
    """Bytes a second that all cores move together, doubling an array of so many bytes.

    Each has its part of it, and another one to write to: no memory is asked for on the way.
    """
    cores = os.cpu_count()
    parts = [np.ones(size // 4 // cores, "float32") for _ in range(cores)]
    targets = [np.empty_like(part) for part in parts]

    def double(part, target):
        for _ in range(repeats):
            np.multiply(part, np.float32(2.0), out=target)

    seconds = []
    with concurrent.futures.ThreadPoolExecutor(cores) as pool:
        for _ in range(20):
            began = time.perf_counter()
            list(pool.map(double, parts, targets))
            seconds.append(time.perf_counter() - began)
    return 2 * size * repeats / statistics.median(seconds)


def measure(width, batch, depth, budget):
    """Ratios of the rounds, and the floor as a ratio of the same kind."""
    case = networks.Case(networks.dense(width, depth), (width,), batch)
    functions = {name: steps.of(case, name)["training"] for name in (networks.PLAIN, METHOD)}
    seconds = timing.time_in_turn(functions, budget, 300, f"{width}, {batch}, {depth}")
    plain = statistics.median(seconds[networks.PLAIN])
    size = 4 * width**2
    floor = depth * KERNELS_MOVED * size / bandwidth(size) / plain
    return {
        "training": timing.ratios(seconds[METHOD], seconds[networks.PLAIN]),
        "floor": float(f"{1.0 + floor:.4g}"),
    }


def fitted(points):
    """`(c, p)` of `overhead = c · xᵖ`, as far as the overheads are positive."""
    positive = [(x, y) for x, y in points if y > 0.0]
    if len(positive) < 2:
        return None
    x, y = np.log(np.array(positive)).T
    power, constant = np.polyfit(x, y, 1)
    return float(np.exp(constant)), float(power)


def percents(records):
    """Quartiles of the time on top of the plain step, in percent of it, a row for each point."""
    return 100.0 * (np.array([timing.quartiles(r["training"]) for r in records]) - 1.0)


def of_sweep(records, sweep, backend):
    """The records of a sweep in the order of what it varies, and that."""
    own = [r for r in records if (r["sweep"], r["backend"]) == (sweep, backend)]
    own.sort(key=lambda record: record["point"][UNITS[sweep]])
    return own, [record["point"][UNITS[sweep]] for record in own]


def table(records):
    """A row for each point, a column for each backend: median with quartiles, and the floor."""
    backends = list(dict.fromkeys(record["backend"] for record in records))
    rows = []
    for sweep in SWEEPS:
        by_backend = {backend: of_sweep(records, sweep, backend) for backend in backends}
        for at in sorted({x for _, points in by_backend.values() for x in points}):
            row = [f"{sweep} {at}, {FIXED[sweep]}"]
            for own, points in by_backend.values():
                record = own[points.index(at)] if at in points else None
                row.append("" if record is None else _cell(record))
            rows.append(row)
    headers = ["% of the plain step", *backends]
    return markdown.table(rows, headers)


def _cell(record):
    ((low, middle, high),) = percents([record])
    floor = 100.0 * (record["floor"] - 1.0)
    return f"{middle:.1f} ({low:.1f}–{high:.1f}), floor {floor:.1f}"


def draw(records, path):
    """A panel for each sweep: points with quartiles, floors dashed, fits in the legends."""
    from matplotlib import ticker

    plt = plots.pyplot()
    backends = list(dict.fromkeys(record["backend"] for record in records))
    looks = ((plots.BLUE, "o"), (plots.VERMILION, "s"), (plots.BLACK, "^"))
    looks = dict(zip(backends, looks, strict=False))
    figure, axes = plt.subplots(1, len(SWEEPS), figsize=(13, 4.2), layout="constrained")
    for ax, sweep in zip(axes, SWEEPS, strict=True):
        for backend in backends:
            own, x = of_sweep(records, sweep, backend)
            if not own:
                continue
            percent = percents(own)
            fit = fitted(list(zip(x, percent[:, 1], strict=True)))
            label = backend if fit is None else f"{backend}: {fit[0]:.3g}·{sweep}^{fit[1]:.2f}"
            middle = percent[:, 1]
            spread = [middle - percent[:, 0], percent[:, 2] - middle]
            color, marker = looks[backend]
            ax.errorbar(x, middle, spread, fmt=f"{marker}-", color=color, label=label)
            floors = [100.0 * (record["floor"] - 1.0) for record in own]
            ax.plot(x, floors, "--", color=color, linewidth=1.0)
        ax.axhline(0.0, color="gray", linewidth=0.8)
        ax.set(xscale="log", xlabel=f"{sweep} ({FIXED[sweep]})")
        ax.xaxis.set_major_formatter(ticker.ScalarFormatter())
        ax.xaxis.set_minor_locator(ticker.NullLocator())
        ax.set_xticks(sorted({r["point"][UNITS[sweep]] for r in records if r["sweep"] == sweep}))
        plots.tidy(ax)
        if ax.get_legend_handles_labels()[0]:
            # Above the panel, where no spread is hidden.
            ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False)
    axes[0].set_ylabel("added to the plain training step, %\ndashed: time of moving kernels")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(words=None):
    parser = arguments.parser("benchmarks.overhead.growth", __doc__)
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--budget", type=float, default=15.0, help="seconds a point (%(default)s)")
    arguments.add_results(parser, "overhead")
    options = parser.parse_args(words)
    path = options.results / "growth.jsonl"
    conditions = environment.environment()
    known = {(r["backend"], r["sweep"], tuple(r["point"])) for r in records.read(path)}
    for sweep in options.sweeps:
        for point in SWEEPS[sweep]:
            if (conditions["backend"], sweep, point) in known:
                continue
            record = {"sweep": sweep, "point": point, **measure(*point, options.budget)}
            records.append(path, {**record, **conditions})
            low, middle, high = timing.quartiles(record["training"])
            print(f"{sweep} {point}: {middle:.3f} ({low:.3f}–{high:.3f}), floor {record['floor']}")


if __name__ == "__main__":
    main()
