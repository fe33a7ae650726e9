"""How curved the loss is while networks train, plain and conditioned.

Deep tanh networks classify the digits that scikit-learn ships, by plain gradient descent
without momentum:

  plain                Dense layers with Keras' default initialization
  plain, matched       the same, started with the scale of the three below
  row equilibration    ConditionedDense, its rows at that scale at every step
  Newton               the same with singular values brought towards one another
  polynomial           the same, more mildly

All but the first start from the same kernels. The learning rate of each is tuned: of those given,
the one with the lowest mean training loss over seeds that are not reported. During training,
`keras_wcond.loss_curvature` measures the extreme eigenvalues of the loss Hessian in all trainable
weights, on all the training data.

Writes a table as Markdown, a picture, and every number as JSON.
"""

import functools
import math
import pathlib
import statistics

from benchmarks.pages import result_file
from benchmarks.shared import arguments, environment, markdown, plots, progress

NETWORKS = {
    "plain": None,
    "plain, matched": None,
    "row equilibration": "row_equilibration",
    "Newton": "newton_orthogonalization",
    "polynomial": "polynomial_preconditioner",
}
# Color, line style and marker of each network.
LOOKS = dict(
    zip(
        NETWORKS,
        (
            (plots.GRAY, ":", "v"),
            (plots.BLACK, "--", "s"),
            (plots.BLUE, "-", "o"),
            (plots.VERMILION, "-", "^"),
            (plots.PURPLE, "-.", "D"),
        ),
        strict=True,
    )
)
# At a high learning rate one network may train where the next one diverges.
TUNING_SEEDS = (1000, 1001, 1002)


def load_digits():
    """Pixels in [-1, 1] of shape (n, 64) and labels of shape (n,), for training and test."""
    from sklearn import datasets, model_selection

    pixels, labels = datasets.load_digits(return_X_y=True)
    pixels = (pixels / 8.0 - 1.0).astype("float32")
    train, test, train_labels, test_labels = model_selection.train_test_split(
        pixels, labels, test_size=0.25, stratify=labels, random_state=0
    )
    return (train, train_labels), (test, test_labels)


def build(network, options):
    import keras

    import keras_wcond
    from keras_wcond import activation_gain

    gain = activation_gain(keras.activations.tanh)
    method = NETWORKS[network]

    def hidden():
        arguments = {"units": options.width, "activation": "tanh"}
        if network != "plain":
            # A new one for every layer: an initializer draws the same values each time.
            arguments["kernel_initializer"] = keras_wcond.ConditionedInitializer(gain=gain)
        if method is None:
            return keras.layers.Dense(**arguments)
        return keras_wcond.ConditionedDense(**arguments, kernel_conditioner=method, gain="auto")

    layers = [hidden() for _ in range(options.depth)]
    return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])


def train(network, rate, seed, options, moments=()):
    """Trains one network; returns its losses and, at the given epochs, its curvature."""
    import keras

    import keras_wcond

    keras.utils.set_random_seed(seed)
    (inputs, labels), test = load_digits()
    model = build(network, options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    losses, curvatures = [], {}
    for epoch in range(options.epochs + 1):
        if epoch in moments:
            found = keras_wcond.loss_curvature(
                model, inputs, labels, iterations=options.iterations, tolerance=0.01
            )
            curvatures[epoch] = {
                "largest": found.largest_eigenvalue,
                "smallest": found.smallest_eigenvalue,
                "largest_error": found.largest_error,
                "smallest_error": found.smallest_error,
                "converged": found.converged,
            }
        if epoch < options.epochs:
            model.fit(inputs, labels, batch_size=64, verbose=0)
        losses.append(model.evaluate(inputs, labels, batch_size=512, verbose=0)[0])
    accuracy = model.evaluate(*test, batch_size=512, verbose=0)[1]
    return {"losses": losses[:-1], "accuracy": accuracy, "curvatures": curvatures}


def measured_epochs(epochs):
    """0, 1, 2, 4, … and the last."""
    powers = [2**i for i in range(20) if 2**i < epochs]
    return [0, *powers, epochs]


def run(options):
    records = []
    moments = measured_epochs(options.epochs)
    total = len(NETWORKS) * (len(options.rates) * len(TUNING_SEEDS) + options.repeats)
    with progress.bar(range(total), unit="run") as bar:
        for network in NETWORKS:
            bar.set_description(f"{network}: tuning")
            tuning = {}
            for rate in options.rates:
                losses = []
                for seed in TUNING_SEEDS:
                    losses.append(train(network, rate, seed, options)["losses"][-1])
                    bar.update()
                tuning[rate] = statistics.mean(losses)
            rate = min(tuning, key=lambda r: math.inf if math.isnan(tuning[r]) else tuning[r])
            bar.set_description(network)
            runs = []
            for seed in range(options.repeats):
                runs.append({"seed": seed, **train(network, rate, seed, options, moments)})
                bar.update()
            records.append({"network": network, "rate": rate, "tuning": tuning, "runs": runs})
    settings = {
        name: getattr(options, name)
        for name in ("epochs", "repeats", "width", "depth", "iterations", "rates")
    }
    return {**environment.environment("scikit-learn"), "settings": settings, "records": records}


def command(result):
    words = []
    for name, value in result["settings"].items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, values)]
    program = "python -m benchmarks.pages.curvature"
    return f"`KERAS_BACKEND={result['backend']} {program} {' '.join(words)}`"


def table(result):
    first, last = "0", str(result["settings"]["epochs"])
    headers = ["network", "learning rate", "train loss", "test accuracy, %"]
    headers += ["λ_max, start → end", "λ_min, start → end"]
    rows = []
    for record in result["records"]:
        runs = record["runs"]

        def change(key, form, runs=runs):
            return " → ".join(
                spread((run["curvatures"][moment][key] for run in runs), form)
                for moment in (first, last)
            )

        rows.append(
            [
                record["network"],
                f"{record['rate']:g}{edge(record, result['settings']['rates'])}",
                spread((run["losses"][-1] for run in runs), "{:.4f}"),
                spread((100 * run["accuracy"] for run in runs), "{:.1f}"),
                change("largest", "{:.3g}"),
                change("smallest", "{:.2g}"),
            ]
        )
    return headers, rows


def spread(values, form):
    """Mean ± standard deviation."""
    values = list(values)
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.mean(values))} ± {form.format(statistics.stdev(values))}"


def edge(record, rates):
    """A mark where the best rate is the lowest or the highest that was tried."""
    return " (edge)" if record["rate"] in (min(rates), max(rates)) else ""


def draw(result, path):
    """Loss and both extreme eigenvalues over training."""
    import numpy as np

    plt = plots.pyplot()
    figure, (losses, largest, smallest) = plt.subplots(
        1, 3, figsize=(13, 4.2), layout="constrained"
    )
    for record in result["records"]:
        name, (color, style, marker) = record["network"], LOOKS[record["network"]]
        curves = np.array([run["losses"] for run in record["runs"]])
        epochs = np.arange(1, curves.shape[1] + 1)
        _curve(losses, epochs, curves, color, style, f"{name} (learning rate {record['rate']:g})")
        for axes, key in ((largest, "largest"), (smallest, "smallest")):
            moments = [int(moment) for moment in record["runs"][0]["curvatures"]]
            values = np.array(
                [[c[key] for c in run["curvatures"].values()] for run in record["runs"]]
            )
            _curve(axes, moments, values, color, style, None, marker)
    losses.set(yscale="log", xlabel="epoch", title="Training loss")
    largest.set(yscale="log", xlabel="epoch", title="Largest eigenvalue of the Hessian")
    smallest.set(xlabel="epoch", title="Smallest eigenvalue of the Hessian")
    smallest.set_yscale("symlog", linthresh=0.01)
    for axes in (losses, largest, smallest):
        axes.title.set_fontsize(11)
        plots.tidy(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _curve(axes, x, values, color, style, label, marker=None):
    mean = values.mean(axis=0)
    axes.plot(x, mean, color=color, linestyle=style, label=label, marker=marker, markersize=4)
    axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.12)


def report(result, folder):
    """Prints the table, and saves it with the picture."""
    headers, rows = table(result)
    markdown.print_table(rows, headers)
    settings = result["settings"]
    unsure = sum(
        not curvature["converged"]
        for record in result["records"]
        for run in record["runs"]
        for curvature in run["curvatures"].values()
    )
    text = "\n\n".join(
        [
            "# Curvature of the loss over training",
            command(result),
            environment.conditions([result]),
            f"{settings['depth']} hidden tanh layers of {settings['width']} on the 1,347 training "
            f"digits, {settings['epochs']} epochs of gradient descent in batches of 64. Mean ± "
            f"standard deviation over {settings['repeats']} seeds. The learning rate of each "
            f"network is that of {', '.join(f'{rate:g}' for rate in settings['rates'])} with the "
            f"lowest mean training loss over {len(TUNING_SEEDS)} other seeds. (edge) marks the "
            "lowest and the highest. Eigenvalues are those of the Hessian of the mean loss on all "
            "training data, in all trainable weights, by Lanczos' method with at most "
            f"{settings['iterations']} steps. In {unsure} measurements an error bound stayed above "
            "1 %.",
            markdown.table(rows, headers),
            "![Training loss, largest and smallest eigenvalue of the Hessian over training]"
            "(curvature.png)",
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curvature.md").write_text(text + "\n", encoding="utf-8")
    draw(result, folder / "curvature.png")
    print(f"Saved {folder / 'curvature.md'} and {folder / 'curvature.png'}")


def parse(words=None):
    parser = arguments.parser("benchmarks.pages.curvature", __doc__)
    parser.add_argument("--epochs", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="seeds (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="units per layer (%(default)s)")
    parser.add_argument("--depth", type=int, default=10, help="hidden layers (%(default)s)")
    parser.add_argument("--iterations", type=int, default=100, help="of Lanczos (%(default)s)")
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.01, 0.03, 0.1, 0.3, 1.0],
        help="learning rates to choose from (%(default)s)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("outputs"),
        help="folder for the table and the picture (%(default)s)",
    )
    result_file.add_arguments(parser)
    return parser.parse_args(words)


def main():
    options = parse()
    result = result_file.load(options, "curvature.json", functools.partial(run, options))
    report(result, options.output)


if __name__ == "__main__":
    main()
