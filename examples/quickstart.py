"""Train a deep network on scanned digits, plain and conditioned.

Five networks of fifty tanh layers classify the 1,797 digits that scikit-learn ships. There are no
normalization layers and no shortcuts, so that the weights decide how well the network trains:

  plain                         Dense layers with Keras' default initialization
  orthogonal start              the plain network, started from orthogonal kernels
  row equilibration             the plain network, with rows of equal norm in every forward pass
  stored Newton steps           the orthogonal start, and a Newton step on the kernels after
                                every eighth update
  orthogonal start and updates  the orthogonal start, and updates with nearly equal singular
                                values

The second network is the control: what the last two gain over it is not the start. Each network has
the best of several learning rates, found on another seed (`--tune`).

Prints a table, and saves it with a picture. The Keras backend is the one that KERAS_BACKEND or
keras.json names; --backends compares backends.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

# The best of `RATES` for each network, by `--tune` with the default options.
NETWORKS = {
    "plain": 0.003,
    "orthogonal start": 0.01,
    "row equilibration": 0.003,
    "stored Newton steps": 0.03,
    "orthogonal start and updates": 0.01,
}
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
TUNING_SEED = 1000
BACKENDS = ("tensorflow", "jax", "torch")
NEXT = """\
Next, for a model of your own:
  updates      condition_optimizer("adam", model, PolarExpress(3, lower=1e-2))
  kernels      condition_optimizer("adam", model, weight_conditioner="newton_step", every=8)
  inspection   print(conditioning_report(model))
  choice       docs/how-to/choose-a-method.md: each method, its measured gain and its cost"""


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
    """One of the networks: tanh layers of one width, and an output layer that is always plain."""
    import keras

    import keras_wcond

    is_default = network in ("plain", "row equilibration")
    initializer = "glorot_uniform" if is_default else "orthogonal"
    layers = [
        keras.layers.Dense(options.width, "tanh", kernel_initializer=initializer)
        for _ in range(options.depth)
    ]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    # Its gain keeps the norm of the initial kernels.
    return keras_wcond.condition_model(model) if network == "row equilibration" else model


def optimizer_for(network, model, rate, steps):
    """SGD with momentum and cosine decay, around which two of the networks condition."""
    import keras

    from keras_wcond import condition_optimizer
    from keras_wcond.conditioners import PolarExpress

    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    sgd = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True)
    if network == "stored Newton steps":
        return condition_optimizer(sgd, model, weight_conditioner="newton_step", every=8)
    if network == "orthogonal start and updates":
        return condition_optimizer(sgd, model, update_conditioner=PolarExpress(3, lower=0.01))
    return sgd


def train(network, seed, options, on_epoch=lambda: None, rate=None):
    """Trains one network; returns its losses, accuracy, seconds and condition numbers."""
    import keras

    keras.utils.set_random_seed(seed)
    (inputs, labels), test = load_digits()
    steps = -(-len(inputs) // options.batch_size)
    model = build(network, options)
    model.compile(
        optimizer_for(network, model, rate or NETWORKS[network], steps * options.epochs),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    start = spectra(model)
    ends = [time.perf_counter()]

    def on_epoch_end(epoch, logs):
        ends.append(time.perf_counter())
        on_epoch()

    callback = keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
    history = model.fit(
        inputs,
        labels,
        batch_size=options.batch_size,
        epochs=options.epochs,
        verbose=0,
        callbacks=[callback],
    )
    # The first epoch compiles the step.
    epochs = [end - begin for begin, end in itertools.pairwise(ends)]
    return {
        "network": network,
        "seed": seed,
        "losses": history.history["loss"],
        "accuracy": model.evaluate(*test, verbose=0, return_dict=True)["accuracy"],
        "milliseconds": 1000 * statistics.median(epochs[1:] or epochs) / steps,
        "start": start,
        "end": spectra(model),
    }


def spectra(model):
    """The singular values of each hidden layer's kernel, as the forward pass uses it."""
    import keras_wcond

    return [
        keras_wcond.singular_values(getattr(layer, "conditioned_kernel", layer.kernel)).tolist()
        for layer in model.layers[:-1]
    ]


def condition_number(spectra):
    """The median over layers of σ_max / σ_min."""
    return statistics.median(values[0] / max(values[-1], 1e-12) for values in spectra)


def run(options):
    """All networks and seeds on the current Keras backend."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        # Threads slow PyTorch down where operations are as small as here.
        torch.set_num_threads(1)
    total = len(NETWORKS) * options.repeats * options.epochs
    runs = []
    with progress_bar(total, "epoch") as bar:
        for seed in range(options.repeats):
            for network in NETWORKS:
                bar.set_description(f"{backend}: {network}")
                runs.append(train(network, seed, options, bar.update))
    return {"backend": backend, "versions": versions(backend), "runs": runs}


def tune(options):
    """Prints the training loss of each network at each of `RATES`, on a seed of its own."""
    with progress_bar(len(NETWORKS) * len(RATES), "run") as bar:
        rows = []
        for network in NETWORKS:
            losses = []
            for rate in RATES:
                losses.append(train(network, TUNING_SEED, options, rate=rate)["losses"][-1])
                bar.update()
            rows.append([network, *(f"{loss:.4f}" for loss in losses)])
    print_table(["training loss at a learning rate of", *map(str, RATES)], rows)


def progress_bar(total, unit):
    import tqdm

    # A log, where the bar cannot be redrawn in place, gets a line now and then.
    interval = 0.1 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(total=total, unit=unit, mininterval=interval)


def versions(backend):
    names = ("keras_wcond", "keras", backend)
    return ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in names)


def run_in_process(backend, options):
    """The same as `run`, in a process of its own on another backend."""
    with tempfile.TemporaryDirectory() as folder:
        records = pathlib.Path(folder) / "records.json"
        command = [sys.executable, __file__, *arguments(options), "--only-records", str(records)]
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, check=True, env=environment)
        return json.loads(records.read_text())


def arguments(options):
    """The command line of a run's settings, by which it can be repeated."""
    names = ("epochs", "repeats", "width", "depth", "batch_size")
    pairs = ((f"--{name.replace('_', '-')}", str(getattr(options, name))) for name in names)
    return [word for pair in pairs for word in pair]


def results_table(result):
    """A row for each network: loss, accuracy, condition number, and the cost of a step."""
    plain = statistics.median(run["milliseconds"] for run in of_network(result, "plain"))
    rows = []
    for network, rate in NETWORKS.items():
        runs = of_network(result, network)
        step = statistics.median(run["milliseconds"] for run in runs)
        kappas = [
            statistics.median(condition_number(run[moment]) for run in runs)
            for moment in ("start", "end")
        ]
        rows.append(
            [
                network,
                f"{rate:g}",
                spread([run["losses"][-1] for run in runs], "{:.4f}"),
                spread([100 * run["accuracy"] for run in runs], "{:.1f}"),
                " → ".join(f"{kappa:,.0f}" for kappa in kappas),
                f"{step:.1f} ms, {step / plain:.1f}×",
            ]
        )
    return [
        f"network, {result['backend']}",
        "learning rate",
        "training loss",
        "test accuracy, %",
        "κ, start → end",
        "step",
    ], rows


def of_network(result, network):
    return [run for run in result["runs"] if run["network"] == network]


def spread(values, form):
    """Mean ± standard deviation."""
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(statistics.mean(values))} ± {form.format(statistics.stdev(values))}"


def print_table(headers, rows):
    import tabulate

    print(tabulate.tabulate(rows, headers, tablefmt="rounded_outline", disable_numparse=True))


# Colors that color-blind readers tell apart, after Okabe and Ito.
LOOKS = {
    "plain": {"color": "black", "linestyle": "-"},
    "orthogonal start": {"color": "#56b4e9", "linestyle": "--"},
    "row equilibration": {"color": "#e69f00", "linestyle": ":"},
    "stored Newton steps": {"color": "#cc79a7", "linestyle": "-."},
    "orthogonal start and updates": {"color": "#0072b2", "linestyle": "-"},
}


def draw(result, path):
    """Loss curves beside the spectra of the middle hidden layer."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (losses, values) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for network, look in LOOKS.items():
        runs = of_network(result, network)
        label = f"{network}, {spread([100 * run['accuracy'] for run in runs], '{:.1f}')} %"
        curves = np.array([run["losses"] for run in runs])
        epochs = np.arange(1, curves.shape[1] + 1)
        losses.plot(epochs, curves.mean(axis=0), linewidth=2, **look)
        losses.fill_between(
            epochs, curves.min(axis=0), curves.max(axis=0), color=look["color"], alpha=0.15
        )
        middle = len(runs[0]["end"]) // 2
        spectra = np.array([run["end"][middle] for run in runs])
        indices = np.arange(1, spectra.shape[1] + 1)
        values.plot(indices, spectra.mean(axis=0), label=label, linewidth=2, **look)
    losses.set(yscale="log", xlabel="epoch", ylabel="training loss")
    losses.xaxis.get_major_locator().set_params(integer=True)
    depth = len(runs[0]["end"])
    losses.set_title(f"{depth} tanh layers on digits: mean loss, range of seeds", fontsize=11)
    values.set(yscale="log", xlabel="index, largest first", ylabel="singular value")
    values.set_title(f"Kernel of hidden layer {middle + 1} after training", fontsize=11)
    values.legend(fontsize=9, title="network, test accuracy", title_fontsize=9)
    for axes in (losses, values):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def report(results, options):
    """Prints the tables, and saves them as Markdown beside the picture."""
    import tabulate

    tables = [results_table(result) for result in results]
    for headers, rows in tables:
        print_table(headers, rows)
    conditions = (
        f"`python examples/quickstart.py {' '.join(arguments(options))}`\n\n"
        + "\n".join(f"- {result['backend']}: {result['versions']}" for result in results)
        + f"\n- Python {platform.python_version()}, {os.cpu_count()} cores, "
        f"{platform.machine()}\n\n"
        f"Networks of {options.depth} tanh layers of width {options.width} classify digits. They "
        f"are trained by SGD with Nesterov momentum and batches of {options.batch_size}. A cell "
        f"has the mean and the standard deviation over {options.repeats} seeds. κ is the condition "
        "number, σ_max / σ_min, as the median over hidden layers and seeds. A step is the median "
        "over epochs and seeds, without compilation. Larger batches make conditioning cheaper "
        "beside the plain step."
    )
    options.output.mkdir(parents=True, exist_ok=True)
    markdown = [
        tabulate.tabulate(rows, headers, tablefmt="github", disable_numparse=True)
        for headers, rows in tables
    ]
    picture = "![Training loss and singular values](quickstart.png)"
    text = "\n\n".join(["# Deep networks on digits", conditions, *markdown, picture]) + "\n"
    (options.output / "quickstart.md").write_text(text, encoding="utf-8")
    draw(results[0], options.output / "quickstart.png")
    print(f"Saved {options.output / 'quickstart.md'} and {options.output / 'quickstart.png'}\n")
    print(NEXT)


def installed_backends():
    return [backend for backend in BACKENDS if importlib.util.find_spec(backend)]


def parse(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--epochs", type=int, default=20, help="passes over the digits (%(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=1, help="seeds per network (%(default)s)")
    parser.add_argument("--width", type=int, default=64, help="units per layer (%(default)s)")
    parser.add_argument("--depth", type=int, default=50, help="hidden layers (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="(%(default)s)")
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=("all", *BACKENDS),
        help="run on each of these, one after the other; all means all installed",
    )
    parser.add_argument("--tune", action="store_true", help="only compare learning rates")
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
    if options.tune:
        tune(options)
        return
    if options.backends:
        chosen = installed_backends() if "all" in options.backends else options.backends
        results = [run_in_process(backend, options) for backend in chosen]
    else:
        results = [run(options)]
    if options.only_records:
        options.only_records.write_text(json.dumps(results[0]))
    else:
        report(results, options)


if __name__ == "__main__":
    main()
