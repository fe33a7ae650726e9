"""Writes docs/results/overhead.md and its pictures from the records of run, growth and products."""

import itertools
import pathlib

from benchmarks.overhead import growth, networks, run, tables
from benchmarks.shared import arguments, environment, markdown, plots, records, timing

BACKENDS = ("jax", "tensorflow", "torch")
# Color and marker of what the picture shows. The rest is in the tables.
LOOKS = {
    tables.METHOD: (plots.VERMILION, "o"),
    networks.BATCH: (plots.BLUE, "s"),
    networks.LAYER: (plots.SKY, "D"),
    networks.SPECTRAL: (plots.PURPLE, "^"),
    "PyTorch weight_norm": (plots.ORANGE, "v"),
    "PyTorch spectral_norm": (plots.GRAY, "P"),
    "Flax WeightNorm": (plots.ORANGE, "v"),
    networks.AGAIN: (plots.BLACK, "x"),
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
    shown, drawn, lowest = list(LOOKS), set(), LEAST_SHOWN
    for ax, (backend, measured) in zip(axes[0], by_backend.items(), strict=True):
        for record in measured:
            name = record["normalization"]
            if name not in LOOKS or record["status"] != "measured":
                continue
            low, middle, high = timing.quartiles(record["training"])
            y = cases.index(record["case"]) + 0.1 * (shown.index(name) - 3.5)
            is_beyond = middle > MOST_SHOWN
            lowest = min(lowest, low)
            color, marker = LOOKS[name]
            drawn.add(name)
            ax.errorbar(
                min(middle, MOST_SHOWN), y, fmt=">" if is_beyond else marker,
                xerr=None if is_beyond else [[middle - low], [min(high, MOST_SHOWN) - middle]],
                markersize=5, color=color, elinewidth=1.5, clip_on=False,
            )  # fmt: skip
        ax.axvline(1.0, color="gray", linewidth=1.0)
        ax.set(title=backend, xlabel="time of a training step / plain step")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        for y in range(1, len(cases)):
            ax.axhline(y - 0.5, color="gray", alpha=0.2, linewidth=0.8)
    axes[0][0].set(xlim=(lowest, MOST_SHOWN), ylim=(len(cases) - 0.5, -0.5))
    axes[0][0].set_yticks(range(len(cases)), cases)
    names = [name for name in shown if name in drawn]
    handles = [
        plt.Line2D([], [], color=color, marker=marker, linestyle="")
        for color, marker in map(LOOKS.get, names)
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def page(on_cpu, on_gpu, memory, grown, products):
    """The document."""
    parts = [INTRODUCTION, *([ON_GPU] if on_gpu else [])]
    for backend, measured in {**on_cpu, **on_gpu}.items():
        rounds = [len(r["training"]) for r in measured if r["status"] == "measured"]
        own = [record for record in measured if record["normalization"] in tables.BASELINES]
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
                tables.ratios(measured, kind, tables.BASELINES),
                f"\n{tables.dearer_than_baselines(measured, kind)}",
            ]
            if others:
                parts += [f"\n{of_others}", tables.ratios(measured, kind, tables.OTHERS)]
            by_optimizer = [r for r in measured if r["normalization"] in networks.BY_OPTIMIZER]
            if by_optimizer and kind == "training":
                table = tables.ratios(by_optimizer, kind, networks.BY_OPTIMIZER)
                parts += [
                    BY_OPTIMIZER.format(
                        backend=backend, conditions=environment.conditions(by_optimizer)
                    ),
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
# Costs

The recommended methods, orthogonal updates and stored Newton steps, are in the sections
*Conditioned updates and stored kernels* of each backend:
[JAX](#conditioned-updates-and-stored-kernels-on-jax),
[TensorFlow](#conditioned-updates-and-stored-kernels-on-tensorflow),
[PyTorch](#conditioned-updates-and-stored-kernels-on-torch). They were not measured on a GPU. The
pictures show row equilibration and baselines. Arrows stand for ratios above 2.

The tables have the time of a training step (forward, backward, plain SGD) and of an inference,
divided by the time of the plain network. One process measures both, in interleaved rounds.
A cell has the median over the rounds and the quartiles. *plain, again* is the plain network a
second time. Differences within its quartiles are noise. Baselines outside Keras are divided by a
plain network of their own library.

- The cases of Dense and Conv2D have three layers. In the transformer block the methods condition
  all six kernels, and the baselines normalize the two Dense layers.
- The optimizer is SGD, which makes the plain step as short as it can be.
- A dash marks a network of which one step took too long for rounds. An empty cell was not measured.
- `python -m benchmarks.overhead.run` measures, and `python -m benchmarks.overhead.report` writes
  this page.

Row equilibration and Frobenius normalization do not form the kernel of a Dense layer where the
product with the inputs is not much larger than the kernel. They scale the product by norms that
take one pass over the kernel. Column equilibration scales the inputs there, and its gradient takes
one more pass. Otherwise the kernel is scaled, in as few passes as the backend allows. Static shapes
decide, and both forms give the same numbers. Each form has to read kernels from memory and write
them. The faster a machine multiplies, the larger this part of a step is. The section on growth
states it as the *floor*.

A folded layer, `layer.fold()`, is the plain layer, with the same operations.

![Time of training steps divided by that of plain steps](overhead.png)
"""

ON_GPU = """\
On a GPU the milliseconds of the plain network are also reported. PyTorch starts operations one by
one from Python, which takes longer than most of them take to run.

![Time of training steps divided by that of plain steps, on a GPU](overhead-gpu.png)
"""

BY_OPTIMIZER = """
### Conditioned updates and stored kernels on {backend}

Training steps with optimizers that condition stored kernels or updates, and with Keras' Muon. A
step with a conditioning after every eighth update is the mean of eight steps. *polar_express of
updates* has the default of two steps. The recommended `PolarExpress(3, lower=1e-2)` takes three,
and so half as many products of matrices more. Measured with:

{conditions}
"""

MEMORY = {
    "jax": """\
The temporaries of a training step in the plan of the compiled program: gradients, activations and
everything else that is neither an argument nor a result. The plain network has its total, the
others have the difference from it. Row equilibration adds no kernel where it scales the product, as
in the Dense cases. A formed kernel is kept from the forward to the backward pass. Where a sum over
a gradient corrects it, as for formed kernels and for column equilibration, the compiler plans for
more gradients at a time.
""",
    "tensorflow": """\
The peak of three training steps above the memory held before them, each network in a process of its
own. The plain network has its total, the others have the difference from it.
""",
    "torch": """\
The largest memory of the tensors that a training step makes, by PyTorch's profiler: gradients,
activations and temporaries. The plain network has its total, the others have the difference from
it. Row equilibration adds no kernel where it scales the product, as in the Dense cases. A formed
kernel is kept from the forward to the backward pass, one for each layer.
""",
}

GROWTH = """\
## Growth of the cost

The table has the cost of row equilibration in Dense networks over width, batch and depth, in
percent of the plain step. The floor is the time of moving the kernels: one read forward, and one
read, one change and one write backward, at the measured bandwidth of the machine for arrays of that
size. The fit is a power law by least squares of logarithms. Costs below the floor occur where
caches hold the kernels, or where a pass is fused with another one.
`python -m benchmarks.overhead.growth` measures this.

![The cost over width, batch and depth, beside its floor](overhead-growth.png)
"""

PRODUCTS = """\
## Methods that take products of matrices

The table is for a ViT-S block with 197 tokens and batches of 8, under Newton's iteration with 5
steps and the polynomial of degree 4, both with `differentiate_multiplier=True`. The defaults hold
the multiplier constant, and their steps are shorter: see the tables above. The table lists the
number of matrix products for a square kernel and for one four times as wide as high, and the ratio
of the training step to the plain one. The last column compares the time that a method adds to the
plain step with the time that the same products alone add. Gradients are included in both. `python
-m benchmarks.overhead.products` measures this.
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
