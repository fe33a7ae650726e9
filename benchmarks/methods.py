"""What each conditioning method does to kernels, and what it costs.

  - singular values and condition numbers of five kernels before and after each method:
    random, two that are badly scaled, one that is nearly rank-deficient, one that is trained
  - the time that conditioning and its gradient take, over that of the product of the kernel
    with a batch and its gradients, in one process, taken in turn
  - the gain of common activations
  - the norms of raw rows while a row-equilibrated network trains, with and without decay

Writes the tables into the blocks of a document that bear their names, pictures beside it,
and every number as JSON.
"""

import argparse
import json
import math
import pathlib
import statistics

import environment
import overhead

METHODS = {
    "row_equilibration": {"class_name": "RowEquilibration", "config": {}},
    "column_equilibration": {"class_name": "ColumnEquilibration", "config": {}},
    "ruiz_equilibration": {"class_name": "RuizEquilibration", "config": {}},
    "frobenius_normalization": {"class_name": "FrobeniusNormalization", "config": {}},
    "spectral_normalization": {"class_name": "SpectralNormalization", "config": {}},
    "weight_standardization": {"class_name": "WeightStandardization", "config": {}},
    "polynomial_preconditioner": {"class_name": "PolynomialPreconditioner", "config": {}},
    "newton_orthogonalization": {"class_name": "NewtonOrthogonalization", "config": {}},
    "Newton, 20 iterations": {
        "class_name": "NewtonOrthogonalization",
        "config": {"iterations": 20},
    },
}
ACTIVATIONS = (
    *("linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish"),
    *("softplus", "tanh", "sigmoid", "hard_sigmoid", "softsign"),
)
SIZE = 256
CASES = {
    "Dense, 1024 → 1024, batch 128": ((1024, 1024), (128, 1024)),
    "Conv2D, 3 × 3, 256 → 256, 16 × 16, batch 8": ((3, 3, 256, 256), (8, 16, 16, 256)),
}
DECAYS = (0.0, 0.01, 0.1)


def kernels():
    """Kernels of `Dense` layers, by what is the matter with them."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)

    def draw():
        initializer = keras.initializers.GlorotUniform(seed=int(random.integers(1000)))
        return keras.ops.convert_to_numpy(initializer((SIZE, SIZE)))

    def scales():
        return 10.0 ** random.uniform(-1.5, 1.5, size=SIZE)

    low_rank = draw()[:, :32] @ draw()[:32] + 1e-4 * draw()
    found = {
        "random": draw(),
        "rows badly scaled": draw() * scales(),
        "rows and columns badly scaled": draw() * np.multiply.outer(scales(), scales()),
        "nearly rank-deficient": low_rank,
        "trained": trained_kernel(),
    }
    return {name: kernel.astype("float32") for name, kernel in found.items()}


def load_digits():
    """Pixels in [-1, 1] of shape (n, 64) and labels of shape (n,)."""
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    return (pixels / 8.0 - 1.0).astype("float32"), labels


def trained_kernel():
    """The middle one of five hidden layers that were trained on digits."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(SIZE, activation="tanh") for _ in range(5)]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    model.fit(*load_digits(), epochs=30, batch_size=64, verbose=0)
    return keras.ops.convert_to_numpy(layers[2].kernel)


def measure_spectra():
    import keras

    import keras_wcond

    records = []
    for name, kernel in environment.bar(list(kernels().items()), unit="kernel", desc="spectra"):
        for method in ("raw", *METHODS):
            result = kernel
            if method != "raw":
                conditioner = keras_wcond.conditioners.deserialize(METHODS[method])
                result = conditioner(keras.ops.convert_to_tensor(kernel))
            records.append(
                {
                    "kernel": name,
                    "method": method,
                    "singular_values": keras_wcond.singular_values(result).tolist(),
                    "condition_number": keras_wcond.effective_condition_number(result),
                }
            )
    return records


def measure_costs(repeats):
    """Seconds of each method with its gradient, and of the product, interleaved."""
    import numpy as np
    from keras import ops

    import keras_wcond
    from keras_wcond.backends import gradient

    random = np.random.default_rng(0)

    def tensor(*shape):
        return ops.convert_to_tensor(random.normal(size=shape).astype("float32"))

    records = []
    for case, (shape, inputs) in CASES.items():
        kernel, x, upstream = tensor(*shape), tensor(*inputs), tensor(*shape)

        def product(values):
            kernel, x = values
            if len(kernel.shape) == 2:
                return ops.sum(ops.square(ops.matmul(x, kernel)))
            return ops.sum(ops.square(ops.conv(x, kernel, padding="same")))

        def timed(function, values):
            function = gradient(function)
            return lambda: ops.convert_to_numpy(function(values)[0])

        functions = {"product": timed(product, [kernel, x])}
        for method, config in METHODS.items():
            conditioner = keras_wcond.conditioners.deserialize(config)

            def conditioned(values, conditioner=conditioner, upstream=upstream):
                return ops.sum(conditioner(values[0]) * upstream)

            functions[method] = timed(conditioned, [kernel])
        seconds = overhead.time_in_turn(functions, math.inf, repeats, case)
        records.append({"case": case, "seconds": seconds})
    return records


def measure_gains():
    import keras

    from keras_wcond.gains import activation_gain

    return {name: activation_gain(keras.activations.get(name)) for name in ACTIVATIONS}


def measure_row_norms(epochs):
    """Mean norms of raw rows over training by plain SGD, for each weight decay."""
    import keras
    import numpy as np

    import keras_wcond

    records = []
    for decay in environment.bar(DECAYS, unit="run", desc="row norms"):
        keras.utils.set_random_seed(0)
        layers = [
            keras_wcond.ConditionedDense(64, activation="tanh", gain="auto") for _ in range(5)
        ]
        model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, weight_decay=decay or None), loss)
        norms, losses = [], []
        for epoch in range(epochs + 1):
            kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in layers]
            norms.append(float(np.mean([np.linalg.norm(kernel, axis=0) for kernel in kernels])))
            if epoch < epochs:
                history = model.fit(*load_digits(), batch_size=64, verbose=0).history
                losses.append(history["loss"][0])
        records.append({"decay": decay, "norms": norms, "losses": losses})
    return records


def condition_table(records):
    names = list(dict.fromkeys(record["kernel"] for record in records))
    found = {(r["kernel"], r["method"]): r["condition_number"] for r in records}
    rows = [
        [method, *(number(found[name, method]) for name in names)] for method in ("raw", *METHODS)
    ]
    return ["method", *names], rows


def number(value):
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def cost_table(records):
    rows = []
    for method in METHODS:
        row = [method]
        for record in records:
            product = statistics.median(record["seconds"]["product"])
            own = record["seconds"][method]
            quartiles = statistics.quantiles(own, n=4)
            row.append(
                f"{statistics.median(own) / product:.2f} "
                f"({quartiles[0] / product:.2f}–{quartiles[2] / product:.2f})"
            )
        rows.append(row)
    return ["method", *(record["case"] for record in records)], rows


def gain_table(gains):
    return list(gains), [[f"{gain:.3f}" for gain in gains.values()]]


def draw_spectra(records, path):
    """A panel per kernel, a line per method."""
    plt = pyplot()
    names = list(dict.fromkeys(record["kernel"] for record in records))
    # The other two are the kernel itself, but for its scale.
    shown = ["raw", *METHODS]
    shown = [m for m in shown if m not in ("frobenius_normalization", "spectral_normalization")]
    figure, panels = plt.subplots(2, 3, figsize=(13, 7.5), layout="constrained", sharey=True)
    panels = panels.flatten()
    colors = ["black", "tab:blue", "tab:cyan", "tab:purple", "tab:orange", "tab:green"]
    colors += ["tab:pink", "tab:red"]
    # Lines that lie on one another stay visible by their widths.
    widths = [6.0, 4.0, 2.5, 1.2, 1.2, 2.5, 1.2, 1.5]
    styles = ["-", "-", "-", "-", "--", "-", "-", "-"]
    for panel, name in zip(panels, names, strict=False):
        looks = zip(shown, colors, widths, styles, strict=False)
        for method, color, width, style in looks:
            (record,) = [r for r in records if (r["kernel"], r["method"]) == (name, method)]
            values = [
                max(v / record["singular_values"][0], 1e-8) for v in record["singular_values"]
            ]
            panel.plot(
                range(1, len(values) + 1),
                values,
                color=color,
                linewidth=width,
                linestyle=style,
                label=method,
            )
        panel.set(yscale="log", ylim=(1e-7, 2.0))
        panel.set_title(name, fontsize=11)
        tidy(panel)
    for panel in panels[2:5]:
        panel.set_xlabel("index, largest first")
    for panel in panels[::3]:
        panel.set_ylabel("σ / σ_max")
    panels[5].axis("off")
    panels[5].legend(*panels[0].get_legend_handles_labels(), loc="center", fontsize=10)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_row_norms(records, path):
    """Raw norms, the rate that follows from them, and the loss."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for record, color in zip(records, ("black", "tab:blue", "tab:red"), strict=True):
        norms, label = record["norms"], f"weight decay {record['decay']:g}"
        panels[0].plot(norms, color=color, label=label)
        panels[1].plot([0.1 / norm**2 for norm in norms], color=color, label=label)
        panels[2].plot(range(1, len(norms)), record["losses"], color=color, label=label)
    panels[0].set_title("Mean norm of the raw rows", fontsize=11)
    panels[1].set_title("Learning rate / squared norm", fontsize=11)
    panels[2].set_title("Training loss", fontsize=11)
    panels[1].set_yscale("log")
    panels[2].set_yscale("log")
    panels[0].legend(fontsize=9)
    for panel in panels:
        panel.set_xlabel("epoch")
        tidy(panel)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def pyplot():
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    return plt


def tidy(axes):
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def report(result, document):
    """Prints the tables, and puts them into the document."""
    import tabulate

    tables = {
        "condition numbers": condition_table(result["spectra"]),
        "costs": cost_table(result["costs"]),
        "gains": gain_table(result["gains"]),
    }
    for name, (headers, rows) in tables.items():
        print(tabulate.tabulate(rows, headers, tablefmt="rounded_outline", disable_numparse=True))
        markdown = tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)
        environment.replace_block(document, name, markdown)
    rounds = len(result["costs"][0]["seconds"]["product"])
    command = (
        f"`KERAS_BACKEND={result['backend']} python benchmarks/methods.py --rounds {rounds} "
        f"--epochs {len(result['row_norms'][0]['losses'])}`"
    )
    text = f"{command}\n\n{environment.conditions([result])}"
    environment.replace_block(document, "conditions", text)
    draw_spectra(result["spectra"], document.parent / "spectra.png")
    draw_row_norms(result["row_norms"], document.parent / "row-norms.png")
    print(f"Wrote the tables of {document}, and spectra.png and row-norms.png beside it")


def parse(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12, help="of timings (%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="with decay (%(default)s)")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        default=pathlib.Path("outputs"),
        help="folder for the numbers, as JSON (%(default)s)",
    )
    parser.add_argument(
        "--document",
        type=pathlib.Path,
        default=pathlib.Path("docs/guide.md"),
        help="where the tables go; pictures beside it (%(default)s)",
    )
    parser.add_argument(
        "--only-table", type=pathlib.Path, help="measure nothing: the report of a JSON file"
    )
    return parser.parse_args(words)


def main():
    options = parse()
    if options.only_table:
        result = json.loads(options.only_table.read_text())
    else:
        result = {
            **environment.environment("scikit-learn"),
            "gains": measure_gains(),
            "spectra": measure_spectra(),
            "row_norms": measure_row_norms(options.epochs),
            "costs": measure_costs(options.rounds),
        }
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"methods-{result['backend']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
    report(result, options.document)


if __name__ == "__main__":
    main()
