"""What conditioning costs on a GPU: training steps in float32, TF32 and bfloat16.

Times a block of ViT-S and one of ResNet-50, plain and with the methods that work on spectra, in
the forward pass, on the stored kernels and on updates, in rounds as `benchmarks.overhead.run`
does. Takes less than eight minutes. Appends a line for each to
benchmarks/results/overhead/BACKEND-precisions.jsonl, and prints a table of all lines there.
"""

import statistics

from benchmarks.overhead import networks, steps
from benchmarks.shared import arguments, environment, markdown, records, timing

NAMES = (
    networks.AGAIN,
    "row_equilibration",
    networks.ONE_STEP,
    "polar_express",
    "polynomial_preconditioner",
    "newton_orthogonalization",
    *networks.BY_OPTIMIZER,
)


def bottleneck(filters):
    """He et al. 2016, the block of ResNet-50: to a quarter of the channels, 3 × 3, and back."""

    def network(x, kit):
        import keras

        y = kit(keras.layers.Conv2D(filters, 1, activation="relu"), x)
        y = kit(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"), y)
        y = kit(keras.layers.Conv2D(4 * filters, 1), y)
        return keras.layers.Activation("relu")(keras.layers.Add()([x, y]))

    return network


CASES = {
    "ViT-S block, 197 tokens": lambda batch: networks.Case(
        networks.transformer_block(384, 6), (197, 384), batch
    ),
    "ResNet-50 block, 14 × 14 × 1024": lambda batch: networks.Case(
        bottleneck(256), (14, 14, 1024), batch
    ),
}
PRECISIONS = ("float32", "tf32", "bfloat16")


def set_precision(name):
    """Sets Keras' dtype policy, and whether products in float32 may be rounded to TF32."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    is_tf32 = name == "tf32"
    match keras.backend.backend():
        case "jax":
            import jax

            precision = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}[name]
            jax.config.update("jax_default_matmul_precision", precision)
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(is_tf32)
        case "torch":
            import torch

            torch.backends.cuda.matmul.allow_tf32 = is_tf32
            torch.backends.cudnn.allow_tf32 = is_tf32


def measure(name, case, precision, budget):
    """Records of a case in one precision."""
    set_precision(precision)
    baselines = dict.fromkeys(map(networks.plain_of, NAMES))
    functions = {each: steps.of(case, each)["training"] for each in (*baselines, *NAMES)}
    seconds = timing.time_in_turn(functions, budget, 200, f"{name}, {precision}")
    for each in NAMES:
        pair = seconds[each], seconds[networks.plain_of(each)]
        calls = networks.EVERY if each == networks.SELDOM else 1
        yield {
            "case": name,
            "batch": case.batch,
            "precision": precision,
            "normalization": each,
            "baseline": networks.plain_of(each),
            "training": timing.ratios(*pair),
            "training_ms": float(f"{1e3 * statistics.median(pair[0]) / calls:.4g}"),
            "training_ms_plain": float(f"{1e3 * statistics.median(pair[1]) / calls:.4g}"),
        }


def table(found):
    """A row for each method, a column for each case and precision."""
    columns = list(dict.fromkeys((record["case"], record["precision"]) for record in found))
    cells = {
        (record["normalization"], record["case"], record["precision"]): record for record in found
    }
    rows = []
    for name in NAMES:
        row = [name]
        for column in columns:
            record = cells.get((name, *column))
            if record is None:
                row.append("")
                continue
            low, middle, high = timing.quartiles(record["training"])
            row.append(f"{middle:.3f} ({low:.2f}–{high:.2f})")
        rows.append(row)
    plain = [
        "plain, ms",
        *(f"{cells[NAMES[0], *each]['training_ms_plain']:.3g}" for each in columns),
    ]
    return markdown.table([plain, *rows], ["", *(f"{case}, {each}" for case, each in columns)])


def parse(words=None):
    parser = arguments.parser("benchmarks.overhead.precisions", __doc__)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, metavar="CASE")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=64, help="of each case (%(default)s)")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds a cell (%(default)s)")
    arguments.add_results(parser, "overhead")
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    conditions = environment.environment()
    path = options.results / f"{conditions['backend']}-precisions.jsonl"
    for name in options.cases:
        for precision in options.precisions:
            for record in measure(name, CASES[name](options.batch), precision, options.budget):
                records.append(path, {**record, **conditions})
    print(table(records.read(path)))


if __name__ == "__main__":
    main()
