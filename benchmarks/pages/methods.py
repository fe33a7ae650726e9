"""What each conditioning method does to kernels, and what it costs.

  - singular values and condition numbers of five kernels before and after each method:
    random, two that are badly scaled, one that is nearly rank-deficient, one that is trained
  - the time that conditioning and its gradient take, over that of the product of the kernel
    with a batch and its gradients, in one process, taken in turn
  - the gain of common activations
  - the norms of raw rows while a row-equilibrated network trains, with and without decay

Writes the tables into the blocks of documents that have their names, the pictures, and every number
as JSON.
"""

import functools
import math
import pathlib

from benchmarks.pages import methods_report, result_file
from benchmarks.shared import arguments, environment, markdown, progress, timing
from keras_wcond import conditioners

METHODS = {
    **{name: {"class_name": name, "config": {}} for name in conditioners.METHODS},
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


def measure(options):
    """Everything that the page reports."""
    return {
        **environment.environment("scikit-learn"),
        "gains": measure_gains(),
        "spectra": measure_spectra(),
        "row_norms": measure_row_norms(options.epochs),
        "costs": measure_costs(options.rounds),
    }


def measure_spectra():
    import keras

    import keras_wcond

    records = []
    for name, kernel in progress.bar(list(kernels().items()), unit="kernel", desc="spectra"):
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
        seconds = timing.time_in_turn(functions, math.inf, repeats, case)
        records.append({"case": case, "seconds": seconds})
    return records


def measure_gains():
    import keras

    from keras_wcond import activation_gain

    return {name: activation_gain(keras.activations.get(name)) for name in ACTIVATIONS}


def measure_row_norms(epochs):
    """Mean norms of raw rows over training by plain SGD, for each weight decay."""
    import keras
    import numpy as np

    import keras_wcond

    records = []
    for decay in progress.bar(DECAYS, unit="run", desc="row norms"):
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


def parse(words=None):
    parser = arguments.parser("benchmarks.pages.methods", __doc__)
    parser.add_argument("--rounds", type=int, default=12, help="of timings (%(default)s)")
    parser.add_argument("--epochs", type=int, default=40, help="with decay (%(default)s)")
    parser.add_argument(
        "--documents",
        type=pathlib.Path,
        nargs="+",
        default=[
            pathlib.Path("docs/explanation/methods.md"),
            pathlib.Path("docs/how-to/choose-a-gain.md"),
        ],
        help="files with blocks for the tables (%(default)s)",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, default=markdown.PAGES, help="for pictures (%(default)s)"
    )
    result_file.add_arguments(parser)
    return parser.parse_args(words)


def main():
    options = parse()
    result = result_file.load(
        options, "methods-{backend}.json", functools.partial(measure, options)
    )
    methods_report.write(result, options.documents, options.output)


if __name__ == "__main__":
    main()
