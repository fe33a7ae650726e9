"""Writes docs/overhead.md and its picture from the lines that overhead.py and products.py wrote."""

import argparse
import pathlib
import statistics

import environment
import lines
import overhead
import subjects
import tabulate

DOCS = pathlib.Path(__file__).parents[1] / "docs"
BACKENDS = ("jax", "tensorflow", "torch")
# What the picture shows: the rest is in the tables.
SHOWN = (
    "row_equilibration",
    subjects.BATCH,
    subjects.LAYER,
    subjects.SPECTRAL,
    "PyTorch weight_norm",
    "PyTorch spectral_norm",
    "Flax WeightNorm",
    overhead.AGAIN,
)
COLORS = dict(
    zip(
        SHOWN,
        ("tab:orange", "tab:blue", "tab:cyan", "tab:purple", "tab:pink", "tab:brown", "tab:pink"),
        strict=False,
    )
)


def quartiles(values):
    return statistics.quantiles(values, n=4)


def cell(record, kind):
    """Median and quartiles, or why there are none."""
    if record is None:
        return ""
    if record["status"] != "measured":
        return "–"
    low, middle, high = quartiles(record[kind])
    return f"{middle:.2f} ({low:.2f}–{high:.2f})"


def table(records, kind):
    """A row for each case and a column for each normalization would be too wide: turned."""
    cases = [case for case in subjects.CASES if any(r["case"] == case for r in records)]
    found = {(record["case"], record["normalization"]): record for record in records}
    names = list(dict.fromkeys(record["normalization"] for record in records))
    names.sort(key=lambda name: (name != overhead.AGAIN, name not in subjects.OURS))
    rows = [[name, *(cell(found.get((case, name)), kind) for case in cases)] for name in names]
    return tabulate.tabulate(
        rows, ["over the plain network", *cases], tablefmt="github", disable_numparse=True
    )


def draw(by_backend, path):
    """A panel for each backend: each case a group of points with their quartiles."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    cases = [
        case
        for case in subjects.CASES
        if any(record["case"] == case for records in by_backend.values() for record in records)
    ]
    figure, axes = plt.subplots(
        1, len(by_backend), figsize=(4.6 * len(by_backend), 1.4 + 0.62 * len(cases)),
        layout="constrained", sharey=True, squeeze=False,
    )  # fmt: skip
    labels = {}
    for ax, (backend, records) in zip(axes[0], by_backend.items(), strict=True):
        for record in records:
            name = record["normalization"]
            if name not in SHOWN or record["status"] != "measured":
                continue
            low, middle, high = quartiles(record["training"])
            y = cases.index(record["case"]) + 0.09 * (SHOWN.index(name) - 3.5)
            labels[name] = ax.errorbar(
                middle, y, xerr=[[middle - low], [high - middle]], fmt="o", markersize=5,
                color=COLORS.get(name, "black"), elinewidth=1.5,
            )  # fmt: skip
        ax.axvline(1.0, color="gray", linewidth=1.0)
        ax.set(title=backend, xlabel="training step, over the plain network")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(cases)), cases)
    axes[0][0].invert_yaxis()
    names = [name for name in SHOWN if name in labels]
    figure.legend([labels[name] for name in names], names, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def memory_table(records):
    """What a step takes on top of the plain network's, in MiB and in kernels of the case."""
    plain = {r["case"]: r["peak"] for r in records if r["normalization"] == subjects.PLAIN}
    rows = [
        [record["case"], record["normalization"], f"{plain[record['case']] / 2**20:.0f}",
         f"{(record['peak'] - plain[record['case']]) / 2**20:+.0f}"]
        for record in records
        if record["normalization"] != subjects.PLAIN and record["case"] in plain
    ]  # fmt: skip
    headers = ["case", "normalization", "plain, MiB", "on top, MiB"]
    return tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def products_table(records):
    rows = []
    for record in records:
        low, middle, high = quartiles(record["over_products"])
        square, wide = (sum(record["products"][kind]) for kind in ("square", "far wider"))
        rows.append(
            [
                record["backend"],
                record["method"],
                f"{square}, {wide}",
                f"{statistics.median(record['over_plain']):.2f}",
                f"{middle:.2f} ({low:.2f}–{high:.2f})",
            ]
        )
    headers = ["backend", "method", "products (square, 1:4)", "step over plain", "over products"]
    return tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def page(by_backend, memory, products):
    """The document."""
    parts = [INTRODUCTION]
    for backend, records in by_backend.items():
        rounds = [len(r["training"]) for r in records if r["status"] == "measured"]
        parts += [
            f"## {backend}",
            environment.conditions(records[0]),
            f"- {min(rounds)} to {max(rounds)} rounds a case",
            "\n### Training step",
            table(records, "training"),
            "\n### Inference",
            table(records, "inference"),
        ]
        if memory.get(backend):
            parts += ["\n### Peak of memory in a training step", memory_table(memory[backend])]
        parts.append("")
    if products:
        parts += [PRODUCTS, products_table(products)]
    return "\n".join(parts) + "\n"


INTRODUCTION = """\
# What conditioning costs

A training step (forward, backward, plain SGD) and an inference under each method and each rival,
over those of the plain network in the same round of the same process: the median over the rounds
with the quartiles. "plain, again" is the plain network a second time: as far as its quartiles are
from 1, no difference can be told. Rivals outside of Keras are over a plain network of their own
library. Three layers in each case of Dense and Conv2D; SGD, so that the step without conditioning
is as short as it gets. `benchmarks/overhead.py` measures, `benchmarks/report_overhead.py` writes
this page.

Row equilibration does not form its kernel where the product with the inputs is not much larger:
Dense layers then scale the product, by norms that take one pass over the kernel. Otherwise the
kernel is scaled, in as few passes as the backend allows. Static shapes decide, both give the same
numbers.
A folded layer, `layer.fold()`, is the plain layer, with its operations and nothing more.

![Training steps over the plain network's](overhead.png)
"""

PRODUCTS = """\
## Methods that take products of matrices

A ViT-S block under Newton's iteration (5 steps) and the polynomial (degree 4): how many products
of matrices each takes of a square kernel and of one four times as wide as high, its training step
over the plain one, and its time on top of the plain step over that of the same products alone, with
their gradients (`benchmarks/products.py`).
"""


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=pathlib.Path, default=overhead.RESULTS)
    parser.add_argument("--output", type=pathlib.Path, default=DOCS)
    options = parser.parse_args(words)
    by_backend, memory = {}, {}
    for backend in BACKENDS:
        if records := lines.read(options.results / f"{backend}.jsonl"):
            by_backend[backend] = records
            memory[backend] = lines.read(options.results / f"{backend}-memory.jsonl")
    products = lines.read(options.results / "products.jsonl")
    draw(by_backend, options.output / "overhead.png")
    text = page(by_backend, memory, products)
    (options.output / "overhead.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
