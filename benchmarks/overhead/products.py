"""What the matrix methods cost in a ViT-S block, beside the products that they are made of.

The block trains plain, under Newton's iteration and the polynomial, both with the gradient of all
their products, and with kernels that pass through the same products of the same shapes and nothing
else, in rounds in one process. The figure is a ratio: the method's time on top of the plain step,
to the time of its products alone on top of it.

Appends a line for each method to benchmarks/results/overhead/products.jsonl.
"""

import math
import statistics

from benchmarks.overhead import networks, steps
from benchmarks.shared import arguments, environment, records, timing

CASE = "ViT-S block, 197 tokens, batch 8"
# (conditioner, how many products it takes of a square matrix, and of one far wider than high:
# with the matrix itself, and of its smaller dimension).
METHODS = {
    "newton_orthogonalization": {"square": (10, 1), "far wider": (2, 12)},
    "polynomial_preconditioner": {"square": (2, 4), "far wider": (2, 4)},
}


def differentiated(method):
    """A method whose gradient passes through all its products."""
    from keras_wcond import conditioners

    return conditioners.METHODS[method](differentiate_multiplier=True)


def conditioner_of_products(method):
    """A conditioner that takes the products of a method, and nothing else."""
    import keras_wcond

    class Products(keras_wcond.conditioners.Conditioner):
        def condition_kernel(self, kernel, layout):
            from keras import ops

            matrix = ops.reshape(kernel, (-1, math.prod(layout.units(kernel.shape))))
            high, wide = matrix.shape
            kind = "far wider" if max(high, wide) >= 2 * min(high, wide) else "square"
            of_matrix, of_gram = METHODS[method][kind]
            # The smaller dimension's Gram matrix, and what the matrix becomes by it, in turn.
            for index in range(of_matrix // 2):
                transposed = ops.transpose(matrix)
                gram = matrix @ transposed if high <= wide else transposed @ matrix
                power = gram
                for _ in range(0 if index else of_gram):
                    power = power @ gram
                matrix = power @ matrix if high <= wide else matrix @ power
            return ops.reshape(matrix, kernel.shape)

    return Products()


def network(conditioner):
    """The block with orthogonal kernels, of which all products stay in range."""
    import keras

    import keras_wcond

    case = networks.CASES[CASE]
    model = case.model(networks.PLAIN)
    for weight in model.trainable_weights:
        if weight.name == "kernel":
            weight.assign(keras.initializers.Orthogonal(seed=0)(weight.shape))
    if conditioner is not None:
        model = keras_wcond.condition_model(model, conditioner, gain=1.0, layers=keras.layers.Layer)
    return steps.of_keras(model, case.batch)["training"]


def main(words=None):
    parser = arguments.parser("benchmarks.overhead.products", __doc__)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds (%(default)s)")
    arguments.add_results(parser, "overhead")
    options = parser.parse_args(words)
    functions = {"plain": network(None)}
    for method in METHODS:
        functions[method] = network(differentiated(method))
        functions[f"{method}, products"] = network(conditioner_of_products(method))
    seconds = timing.time_in_turn(functions, options.budget, 100, "rounds")
    for method, products in METHODS.items():
        rounds = zip(seconds[method], seconds[f"{method}, products"], seconds["plain"], strict=True)
        record = {
            "method": method,
            "case": CASE,
            "products": products,
            "over_products": [
                float(f"{(own - plain) / (alone - plain):.4g}") for own, alone, plain in rounds
            ],
            "over_plain": timing.ratios(seconds[method], seconds["plain"]),
            **environment.environment(),
        }
        records.append(options.results / "products.jsonl", record)
        low, middle, high = timing.quartiles(record["over_products"])
        over_plain = statistics.median(record["over_plain"])
        print(
            f"{method:28} {over_plain:.2f} × plain, "
            f"{middle:.2f} ({low:.2f}–{high:.2f}) × its products alone"
        )


if __name__ == "__main__":
    main()
