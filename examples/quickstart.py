"""Train plain and conditioned networks on real scanned digits, and look at both.

Four networks of the same shape classify the 1,797 digits that scikit-learn ships:

  plain                    Dense layers with Keras' default initialization
  plain, unit rows         the same, started with rows of the norm that suits the activation
  conditioned, same start  ConditionedDense layers, which keep rows at that norm at every
                           step, started as the very network above
  conditioned              ConditionedDense layers with Keras' default initialization

From the first to the second only the scale at the start changes; from there to the third
only the conditioning; from there to the fourth the rate at which the weights learn, which
goes with the ratio of effective to raw kernel. One learning rate serves all four: that
shows the tool at work, and is no comparison of methods, each of which would have to be
tuned on its own.

Prints tables and saves them with a picture. The Keras backend is the one KERAS_BACKEND or
keras.json names; --backends compares backends.
"""

import argparse
import importlib
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

NETWORKS = ("plain", "plain, unit rows", "conditioned, same start", "conditioned")
BACKENDS = ("tensorflow", "jax", "torch")


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
    """One of the four networks: tanh layers of one width and a last layer, plain in all.

    Unit rows would bound the logits of a last layer.
    """
    import keras

    import keras_wcond
    from keras_wcond import activation_gain

    gain = activation_gain(keras.activations.tanh)

    def hidden():
        arguments = {"units": options.width, "activation": "tanh"}
        if network in ("plain, unit rows", "conditioned, same start"):
            # A new one for every layer: an initializer draws the same values each time.
            arguments["kernel_initializer"] = keras_wcond.ConditionedInitializer(gain=gain)
        if network.startswith("plain"):
            return keras.layers.Dense(**arguments)
        return keras_wcond.ConditionedDense(**arguments, gain="auto")

    layers = [hidden() for _ in range(options.depth)]
    return keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])


def spectra(model):
    """Singular values and condition number of every layer's raw and effective kernel."""
    return [
        {
            "raw": spectrum(layer.kernel),
            "effective": spectrum(getattr(layer, "conditioned_kernel", layer.kernel)),
        }
        for layer in model.layers
    ]


def spectrum(kernel):
    import keras_wcond

    return {
        "singular_values": keras_wcond.singular_values(kernel).tolist(),
        "condition_number": keras_wcond.condition_number(kernel),
    }


def train(network, seed, options, on_epoch):
    """Trains one network; returns its losses, spectra, test accuracy and seconds."""
    import keras

    keras.utils.set_random_seed(seed)
    (inputs, labels), test = load_digits()
    model = build(network, options)
    model.compile(
        keras.optimizers.SGD(options.learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = spectra(model)
    began = time.perf_counter()
    history = model.fit(
        inputs,
        labels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())],
    )
    seconds = time.perf_counter() - began
    return {
        "network": network,
        "seed": seed,
        "losses": history.history["loss"],
        "accuracy": model.evaluate(*test, verbose=0, return_dict=True)["accuracy"],
        "seconds": seconds,
        "start": start,
        "end": spectra(model),
    }


def run(options):
    """All networks and seeds on the Keras backend in force, under a progress bar."""
    import keras
    import tqdm

    backend = keras.backend.backend()
    runs = []
    total = len(NETWORKS) * options.repeats * options.epochs
    # A line now and then where the bar cannot be redrawn in place, as in a log.
    pace = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm.tqdm(total=total, unit="epoch", mininterval=pace) as bar:
        for seed in range(options.repeats):
            for network in NETWORKS:
                bar.set_description(f"{backend}: {network}")
                runs.append(train(network, seed, options, bar.update))
    return {"backend": backend, "versions": versions(backend), "runs": runs}


def versions(backend):
    names = ("keras_wcond", "keras", backend)
    return ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in names)


def run_elsewhere(backend, options):
    """The same as `run`, in a process of its own on another backend."""
    with tempfile.TemporaryDirectory() as folder:
        records = pathlib.Path(folder) / "records.json"
        command = [sys.executable, __file__, *arguments(options), "--only-records", str(records)]
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, check=True, env=environment)
        return json.loads(records.read_text())


def arguments(options):
    """The command line of a run's settings, by which it can be repeated."""
    names = ("epochs", "repeats", "width", "depth", "learning_rate", "batch_size")
    pairs = ((f"--{name.replace('_', '-')}", str(getattr(options, name))) for name in names)
    return [word for pair in pairs for word in pair]


def results_table(results):
    """Loss, accuracy and time of every network, the backends side by side."""
    measures = {
        "train loss": ("{:.4f}", lambda run: run["losses"][-1]),
        "test accuracy, %": ("{:.1f}", lambda run: 100 * run["accuracy"]),
        "seconds": ("{:.1f}", lambda run: run["seconds"]),
    }
    rows = [
        [name, network]
        + [spread(map(measure, of_network(result, network)), form) for result in results]
        for name, (form, measure) in measures.items()
        for network in NETWORKS
    ]
    return ["", "network", *(result["backend"] for result in results)], rows


def condition_table(results):
    """κ of every layer's kernel, raw and effective, at the start and at the end."""
    kinds = [(result, kind) for result in results for kind in ("raw", "effective")]
    rows = [
        [network, layer + 1] + [change(of_network(r, network), layer, kind) for r, kind in kinds]
        for network in NETWORKS
        for layer in range(len(results[0]["runs"][0]["start"]))
    ]
    headers = [f"{kind} κ, {result['backend']}" for result, kind in kinds]
    return ["network", "layer", *headers], rows


def change(runs, layer, kind):
    """The median condition number of a layer before and after training."""
    medians = (
        statistics.median(run[moment][layer][kind]["condition_number"] for run in runs)
        for moment in ("start", "end")
    )
    return " → ".join(f"{median:,.0f}" if median >= 10 else f"{median:.2f}" for median in medians)


def of_network(result, network):
    return [run for run in result["runs"] if run["network"] == network]


def spread(values, form):
    """Mean ± standard deviation."""
    values = list(values)
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.mean(values))} ± {form.format(statistics.stdev(values))}"


def draw(results, path):
    """Loss curves beside the effective spectra of the middle hidden layer."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("agg")
    from matplotlib import pyplot as plt

    # Curves that lie on one another stay visible by their widths.
    colors = dict(zip(NETWORKS, ("tab:gray", "tab:orange", "black", "tab:blue"), strict=True))
    widths = dict(zip(NETWORKS, (2, 6, 2.5, 1.5), strict=True)) if len(results) == 1 else {}
    styles = ("-", "--", ":")
    figure, (losses, values) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for result, style in zip(results, styles, strict=False):
        for network in NETWORKS:
            runs = of_network(result, network)
            label = network if len(results) == 1 else f"{network} ({result['backend']})"
            look = {"color": colors[network], "linestyle": style, "label": label}
            look["linewidth"] = widths.get(network, 1.5)
            curves = np.array([run["losses"] for run in runs])
            epochs = np.arange(1, curves.shape[1] + 1)
            losses.plot(epochs, curves.mean(axis=0), **look)
            losses.fill_between(
                epochs, curves.min(axis=0), curves.max(axis=0), color=colors[network], alpha=0.15
            )
            middle = len(runs[0]["end"]) // 2 - 1
            spectra = np.array([run["end"][middle]["effective"]["singular_values"] for run in runs])
            values.plot(np.arange(1, spectra.shape[1] + 1), spectra.mean(axis=0), **look)
    losses.set(yscale="log", xlabel="epoch", ylabel="training loss")
    losses.xaxis.get_major_locator().set_params(integer=True)
    losses.set_title("Training loss: mean, and range over seeds", fontsize=11)
    values.set(yscale="log", xlabel="index, largest first", ylabel="singular value")
    title = f"Effective kernel of hidden layer {middle + 1}, after training"
    values.set_title(title, fontsize=11)
    for axes in (losses, values):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    values.legend(fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(results, options):
    """Prints the tables, and saves them as Markdown beside the picture."""
    import tabulate

    conditions = (
        f"`python examples/quickstart.py {' '.join(arguments(options))}`\n\n"
        + "\n".join(f"- {result['backend']}: {result['versions']}" for result in results)
        + f"\n- Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.machine()}\n\n"
        f"Mean ± standard deviation over {options.repeats} seeds; condition numbers are "
        "medians over the seeds. Seconds are those of training, compilation included."
    )
    tables = [results_table(results), condition_table(results)]
    for headers, rows in tables:
        print(tabulate.tabulate(rows, headers, tablefmt="rounded_outline", disable_numparse=True))
    options.output.mkdir(parents=True, exist_ok=True)
    markdown = [
        tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)
        for headers, rows in tables
    ]
    text = "\n\n".join(["# Quickstart", conditions, *markdown, "![](quickstart.png)"]) + "\n"
    (options.output / "quickstart.md").write_text(text, encoding="utf-8")
    draw(results, options.output / "quickstart.png")
    print(f"Saved {options.output / 'quickstart.md'} and {options.output / 'quickstart.png'}")


def installed_backends():
    return [backend for backend in BACKENDS if importlib.util.find_spec(backend)]


def parse(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="passes over the digits (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="seeds per network (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="units per layer (%(default)s)")
    parser.add_argument("--depth", type=int, default=6, help="hidden layers (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="of SGD (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=("all", *BACKENDS),
        help="run on each of these, one after the other, and compare; all means all installed",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("outputs"),
        help="folder for the table and the picture (%(default)s)",
    )
    parser.add_argument("--only-records", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main():
    options = parse()
    if options.backends:
        chosen = installed_backends() if "all" in options.backends else options.backends
        results = [run_elsewhere(backend, options) for backend in chosen]
    else:
        results = [run(options)]
    if options.only_records:
        options.only_records.write_text(json.dumps(results[0]))
    else:
        report(results, options)


if __name__ == "__main__":
    main()
