"""Writes docs/results/overhead.md and its pictures from the lines that run, growth and products
wrote.
"""

import itertools
import pathlib

from benchmarks.overhead import growth, networks, run, tables
from benchmarks.shared import arguments, environment, markdown, plots, records, timing

BACKENDS = ("jax", "tensorflow", "torch")
# What the picture shows: the rest is in the tables.
COLORS = {
    tables.METHOD: "tab:orange",
    networks.BATCH: "tab:blue",
    networks.LAYER: "tab:cyan",
    networks.SPECTRAL: "tab:purple",
    "PyTorch weight_norm": "tab:pink",
    "PyTorch spectral_norm": "tab:brown",
    "Flax WeightNorm": "tab:pink",
    networks.AGAIN: "black",
}
# The axis begins here, or further left where quartiles do.
LEAST_SHOWN = 0.9
# To the right of it, networks are drawn on the edge.
MOST_SHOWN = 2.0


def draw(by_backend, path):
    """A panel for each backend: each case a group of points with their quartiles."""
    plt = plots.pyplot()
    cases = tables.cases_of(itertools.chain.from_iterable(by_backend.values()))
    figure, axes = plt.subplots(
        1, len(by_backend), figsize=(4.6 * len(by_backend), 1.4 + 0.62 * len(cases)),
        layout="constrained", sharex=True, sharey=True, squeeze=False,
    )  # fmt: skip
    labels, shown, lowest = {}, list(COLORS), LEAST_SHOWN
    for ax, (backend, measured) in zip(axes[0], by_backend.items(), strict=True):
        for record in measured:
            name = record["normalization"]
            if name not in COLORS or record["status"] != "measured":
                continue
            low, middle, high = timing.quartiles(record["training"])
            y = cases.index(record["case"]) + 0.1 * (shown.index(name) - 3.5)
            is_beyond = middle > MOST_SHOWN
            lowest = min(lowest, low)
            labels[name] = ax.errorbar(
                min(middle, MOST_SHOWN), y, fmt=">" if is_beyond else "o",
                xerr=None if is_beyond else [[middle - low], [min(high, MOST_SHOWN) - middle]],
                markersize=5, color=COLORS[name], elinewidth=1.5, clip_on=False,
            )  # fmt: skip
        ax.axvline(1.0, color="gray", linewidth=1.0)
        ax.set(title=backend, xlabel="training step, over the plain network")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        for y in range(1, len(cases)):
            ax.axhline(y - 0.5, color="gray", alpha=0.2, linewidth=0.8)
    axes[0][0].set(xlim=(lowest, MOST_SHOWN), ylim=(len(cases) - 0.5, -0.5))
    axes[0][0].set_yticks(range(len(cases)), cases)
    names = [name for name in shown if name in labels]
    figure.legend(
        [labels[name].lines[0] for name in names], names, loc="outside lower center", ncols=4
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def page(on_cpu, on_gpu, memory, grown, products):
    """The document."""
    parts = [INTRODUCTION, *([ON_GPU] if on_gpu else [])]
    for backend, measured in {**on_cpu, **on_gpu}.items():
        rounds = [len(r["training"]) for r in measured if r["status"] == "measured"]
        own = [record for record in measured if record["normalization"] in tables.RIVALS]
        others = [record for record in measured if record["normalization"] in tables.OTHERS]
        conditions = environment.conditions(own)
        elsewhere = environment.conditions(others)
        of_others = "The other methods:\n"
        if elsewhere != conditions:
            of_others = f"The other methods, measured with:\n\n{elsewhere}\n"
        parts += [
            f"## {backend}\n",
            conditions,
            f"- {min(rounds)} to {max(rounds)} rounds a case",
        ]
        for kind, title in (("training", "Training step"), ("inference", "Inference")):
            parts += [
                f"\n### {title} on {backend}\n",
                tables.ratios(measured, kind, tables.RIVALS),
                f"\n{tables.dearer_than_rivals(measured, kind)}",
            ]
            if others:
                parts += [f"\n{of_others}", tables.ratios(measured, kind, tables.OTHERS)]
            by_optimizer = [r for r in measured if r["normalization"] in networks.BY_OPTIMIZER]
            if by_optimizer and kind == "training":
                table = tables.ratios(by_optimizer, kind, networks.BY_OPTIMIZER)
                parts += [
                    BY_OPTIMIZER.format(conditions=environment.conditions(by_optimizer)),
                    table,
                ]
        if memory.get(backend):
            title = f"\n### Memory on {backend}\n"
            parts += [title, MEMORY[backend], tables.memory(memory[backend])]
        parts.append("")
    if grown:
        parts += [GROWTH, growth.table(grown), "", environment.conditions(grown), ""]
    if products:
        parts += [PRODUCTS, tables.products(products), "", environment.conditions(products)]
    return "\n".join(parts).rstrip() + "\n"


INTRODUCTION = """\
# What conditioning costs

A training step (forward, backward, plain SGD) and an inference under each method and each rival,
over those of the plain network in the same round of the same process: the median over the rounds
with the quartiles. "plain, again" is the plain network a second time: as far as its quartiles are
from 1, no difference can be told. Rivals outside of Keras are over a plain network of their own
library. Three layers in each case of Dense and Conv2D. In the transformer's block the methods
condition all six kernels, and rivals normalize those of the two Dense layers, not the attention's.
The optimizer is SGD, so that the step without conditioning is as short as it gets. A dash is a
network one step of which took too long to be timed in rounds, an empty cell one that was not
measured. `python -m benchmarks.overhead.run` measures, `python -m benchmarks.overhead.report`
writes this page.

Row equilibration and Frobenius normalization do not form their kernel where the product with the
inputs is not much larger: Dense layers then scale the product, by norms that take one pass over
the kernel. Column equilibration scales the inputs then, and its gradient takes one pass more.
Otherwise the kernel is scaled, in as few passes as the backend allows. Static shapes decide, both
give the same numbers. Either takes at least the time to read kernels from memory and to write them,
which is the larger part of a step, the faster a machine multiplies. The floors at the end of this
page tell how much that was on the machines named there.

A folded layer, `layer.fold()`, is the plain layer, with its operations and nothing more.

![Training steps over the plain network's](overhead.png)
"""

ON_GPU = """\
From a GPU, the plain network's milliseconds are told too. PyTorch starts operations one by one from
Python, which takes longer than most of them take to run.

![Training steps over the plain network's, on a GPU](overhead-gpu.png)
"""

BY_OPTIMIZER = """
Optimizers that condition stored kernels or updates, and Keras' Muon. A step with a conditioning
after every eighth update is the mean of eight steps. Measured with:

{conditions}
"""

MEMORY = {
    "jax": """\
The temporaries of a training step, as the compiled program plans them: gradients, activations and
whatever else is neither an argument nor a result. For the plain network as it is, for the others
what comes on top. Row equilibration adds no kernel to them where it scales the product, as in the
Dense cases. A kernel that is formed is kept from the forward to the backward pass. And where a
sum over a gradient corrects it, as for formed kernels and for column equilibration, the compiler
plans for more gradients at a time.
""",
    "tensorflow": """\
The peak of three training steps over what was held before them, each network in a process
of its own; for the plain network as it is, for the others what comes on top.
""",
    "torch": """\
The most that the tensors which a training step makes hold at a time, by PyTorch's profiler:
gradients, activations and temporaries. For the plain network as it is, for the others what comes on
top. Row equilibration adds no kernel where it scales the product, as in the Dense cases. A kernel
that is formed is kept from the forward to the backward pass, one for each layer.
""",
}

GROWTH = """\
## How the cost grows

Row equilibration in Dense networks, over width, batch and depth. The floor is what moving the
kernels takes: one read forward, and one read, change and write backward, over the bandwidth of the
machine for arrays of that size, over the plain step (`python -m benchmarks.overhead.growth`). \
Both are in percent
of the plain step; the fit is a power law by least squares of logarithms. Where caches hold the
kernels, or a pass is fused with one that is made anyway, less than the floor is seen.

![The cost over width, batch and depth, beside its floor](overhead-growth.png)
"""

PRODUCTS = """\
## Methods that take products of matrices

The table is for a ViT-S block under Newton's iteration with 5 steps and the polynomial of degree 4.
It lists the number of matrix products for a square kernel and for one four times as wide as high,
and the ratio of the training step to the plain one. The last column compares the time that a method
adds to the plain step with the time that the same products alone add. Gradients are included in
both. `python -m benchmarks.overhead.products` measures this.
"""


def main(words=None):
    parser = arguments.parser("benchmarks.overhead.report", __doc__)
    arguments.add_results(parser, "overhead")
    parser.add_argument("--output", type=pathlib.Path, default=markdown.PAGES)
    options = parser.parse_args(words)
    on_cpu, on_gpu, memory = {}, {}, {}
    for backend in BACKENDS:
        for at, title, is_gpu in ((on_cpu, backend, False), (on_gpu, f"{backend} (GPU)", True)):
            files = [run.file_name(backend, is_gpu, peaks) for peaks in (False, True)]
            times, peaks = (records.read(options.results / file) for file in files)
            if times:
                at[title], memory[title] = times, peaks
    grown = records.read(options.results / "growth.jsonl")
    products = records.read(options.results / "products.jsonl")
    for at, name in ((on_cpu, "overhead.png"), (on_gpu, "overhead-gpu.png")):
        if at:
            draw(at, options.output / name)
    if grown:
        growth.draw(grown, options.output / "overhead-growth.png")
    text = page(on_cpu, on_gpu, memory, grown, products)
    (options.output / "overhead.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
