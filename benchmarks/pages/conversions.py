"""Condition whole models, train them a step, fold them, and see that nothing is lost.

For models of keras.applications and KerasHub, with random weights (nothing is downloaded):

  - converts with `condition_model`, several times, and takes the times
  - compares the outputs of `fold_model(conditioned)` with those of the conditioned model
  - saves the conditioned model, loads it, and compares the outputs
  - takes one training step with Adam, and counts the conditioned kernels that changed

Writes a table as Markdown, and every number as JSON. The Keras backend is the one
KERAS_BACKEND or keras.json names.
"""

import functools
import pathlib
import tempfile
import time

from benchmarks.pages import result_file
from benchmarks.shared import arguments, environment, markdown, progress

IMAGE = (64, 64, 3)
MODELS = {
    "ResNet50": lambda: application("ResNet50"),
    "MobileNetV2": lambda: application("MobileNetV2"),
    "EfficientNetB0": lambda: application("EfficientNetB0"),
    "ConvNeXtTiny": lambda: application("ConvNeXtTiny"),
    "DenseNet121": lambda: application("DenseNet121"),
    "KerasHub ViTBackbone (tiny)": lambda: vision_transformer(),
    "KerasHub BertBackbone (tiny)": lambda: text_encoder(),
}


def application(name):
    import keras

    return getattr(keras.applications, name)(weights=None, input_shape=IMAGE)


def vision_transformer():
    """The sizes of ViT-Ti: 12 layers of 192."""
    import keras_hub

    return keras_hub.models.ViTBackbone(
        image_shape=IMAGE, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768
    )


def text_encoder():
    """The sizes of BERT tiny: 2 layers of 128."""
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=30522, num_layers=2, num_heads=2, hidden_dim=128, intermediate_dim=512
    )


def random_inputs(model, batch=2):
    """Inputs of a model's own structure: noise for images, 1 and 0 for tokens and masks."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)

    def array(tensor):
        shape = [batch, *(size or 16 for size in tensor.shape[1:])]
        if "int" in tensor.dtype:
            return rng.integers(0, 2, shape).astype(tensor.dtype)
        return rng.normal(size=shape).astype(tensor.dtype)

    return keras.tree.map_structure(array, model.input)


def outputs(model, inputs):
    """All outputs of a model, each as one array."""
    import keras

    return keras.tree.flatten(model.predict(inputs, verbose=0))


def relative_difference(results, expected):
    """The largest difference of two lists of arrays, over the largest value of each."""
    import numpy as np

    return max(
        float(np.max(np.abs(result - reference)) / np.max(np.abs(reference)))
        for result, reference in zip(results, expected, strict=True)
    )


def measure(name, repeats):
    """Everything there is to say of one model, as a dict."""
    import keras

    import keras_wcond

    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        conditioned = keras_wcond.condition_model(model)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    folded = keras_wcond.fold_model(conditioned)
    fold_seconds = time.perf_counter() - began
    inputs = random_inputs(model)
    expected = outputs(conditioned, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        model.save(path / "plain.keras")
        conditioned.save(path / "conditioned.keras")
        folded.save(path / "folded.keras")
        loaded = keras.models.load_model(path / "conditioned.keras")
        sizes = {file.stem: file.stat().st_size for file in path.glob("*.keras")}
    kernels = conditioned_kernels(conditioned)
    return {
        "model": name,
        "weights": model.count_params(),
        "layers": len({id(layer) for layer, _ in kernels}),
        "kernels": len(kernels),
        "seconds": seconds,
        "fold_seconds": fold_seconds,
        "sizes": sizes,
        "folded_difference": relative_difference(outputs(folded, inputs), expected),
        "loaded_difference": relative_difference(outputs(loaded, inputs), expected),
        "changed": changed_by_a_step(conditioned, [kernel for _, kernel in kernels], inputs),
    }


def conditioned_kernels(model):
    """Pairs of a conditioned layer and one of its raw kernels."""
    from keras_wcond import conditioned_layers

    return [
        (layer, kernel)
        for layer in model.layers
        for inner in conditioned_layers(layer)
        for kernel in inner.raw_kernels.values()
    ]


def changed_by_a_step(model, kernels, inputs):
    """How many kernels one step of Adam on random targets changes."""
    import keras
    import numpy as np

    rng = np.random.default_rng(1)
    before = [keras.ops.convert_to_numpy(kernel).copy() for kernel in kernels]
    targets = keras.tree.map_structure(
        lambda tensor: rng.normal(size=[2, *(n or 16 for n in tensor.shape[1:])]), model.output
    )
    model.compile(keras.optimizers.Adam(1e-3), loss="mse")
    model.fit(inputs, targets, batch_size=2, verbose=0)
    return sum(
        bool(np.any(keras.ops.convert_to_numpy(kernel) != value))
        for kernel, value in zip(kernels, before, strict=True)
    )


def table(records):
    """One row per model, in the order they were measured."""
    headers = [
        "model",
        "weights",
        "layers",
        "kernels",
        "changed by a step",
        "seconds to convert: first, later",
        "to fold",
        "file, MB: plain, conditioned, folded",
        "folded − conditioned",
        "loaded − conditioned",
    ]
    rows = [
        [
            record["model"],
            f"{record['weights']:,}",
            record["layers"],
            record["kernels"],
            record["changed"],
            first_and_later(record["seconds"]),
            f"{record['fold_seconds']:.1f}",
            ", ".join(
                f"{record['sizes'][kind] / 1e6:.2f}" for kind in ("plain", "conditioned", "folded")
            ),
            f"{record['folded_difference']:.1e}",
            f"{record['loaded_difference']:.1e}",
        ]
        for record in records
    ]
    return headers, rows


def first_and_later(seconds):
    """The first time in the process, and the range of the others."""
    later = seconds[1:] or seconds
    return f"{seconds[0]:.1f}, {min(later):.1f}–{max(later):.1f}"


def report(result, folder):
    """Prints the table, and saves it with its conditions as Markdown."""
    headers, rows = table(result["records"])
    markdown.print_table(rows, headers)
    repeats = len(result["records"][0]["seconds"])
    text = "\n\n".join(
        [
            "# Whole models, conditioned and folded",
            f"`KERAS_BACKEND={result['backend']} python -m benchmarks.pages.conversions "
            f"--repeats {repeats}`",
            environment.conditions([result]),
            "Random weights; images of 64 × 64, or 16 tokens; float32.",
            markdown.table(rows, headers),
            "- *layers*, *kernels*: how many `condition_model(model)` conditioned. "
            "Embeddings, depthwise kernels and the Dense layers that make the outputs stay plain. "
            "A layer of KerasHub's with many layers inside counts as one.\n"
            "- *changed by a step*: how many of these kernels one step of Adam changed.\n"
            "- *seconds to convert*: weights included; the first conversion in the process, and "
            f"the range of the {repeats - 1} after it. *To fold*: one `fold_model(conditioned)`.\n"
            "- *folded − conditioned*: the largest difference between the outputs of the two, over "
            "the largest output. *loaded*: the conditioned model's `.keras` file, read again.",
        ]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conversions.md").write_text(text + "\n", encoding="utf-8")
    print(f"Saved {folder / 'conversions.md'}")


def parse(words=None):
    parser = arguments.parser("benchmarks.pages.conversions", __doc__)
    parser.add_argument(
        "--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="(all)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="conversions timed (%(default)s)")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("outputs"),
        help="folder for the table, as Markdown (%(default)s)",
    )
    result_file.add_arguments(parser)
    return parser.parse_args(words)


def measure_all(names, repeats):
    records = []
    with progress.bar(names, unit="model") as bar:
        for name in bar:
            bar.set_description(name)
            records.append(measure(name, repeats))
    return {**environment.environment("keras-hub"), "records": records}


def main():
    options = parse()
    measure_models = functools.partial(measure_all, options.models, options.repeats)
    result = result_file.load(options, "conversions-{backend}.json", measure_models)
    report(result, options.output)


if __name__ == "__main__":
    main()
