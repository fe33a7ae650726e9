import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.diagnostics.measures import row_norm_spread
from keras_wcond.diagnostics.model_kernels import model_kernels, values
from keras_wcond.diagnostics.plots import draw_measurements
from keras_wcond.diagnostics.scalar_files import CSVFile, EventFile
from keras_wcond.diagnostics.spectrum import Spectrum
from keras_wcond.kernels.search import Kernel, all_layers
from keras_wcond.layers.base.survey import conditioned_layers

if TYPE_CHECKING:
    from keras_wcond.diagnostics.plots import Figure

# The effective condition numbers come first, as in the report.
MEASURES = (
    "raw_effective_condition_number",
    "effective_condition_number",
    "numerical_rank",
    "raw_condition_number",
    "condition_number",
    "largest_singular_value",
    "row_norm_spread",
    "relative_update",
)
# If a method takes a rank, the smallest singular value is a rounding error, and κ means nothing.
_NOT_DRAWN = {"raw_condition_number", "condition_number"}


class FoldConditioning(keras.callbacks.Callback):
    """Conditions a model in the first epochs only, and trains it as a plain one afterwards.

    At the beginning of an epoch, every conditioned layer takes its conditioned kernels for its
    kernels, and computes as the plain layer from then on. The function that the model computes
    stays the same at that moment, and the state of the optimizer is kept. Steps then cost what
    plain ones do.

    Use `gain="kernel_norm"` in the layers. With another gain the norm of a kernel changes at the
    folding, and the steps of the optimizer, which were made for the norm of the raw kernel, may be
    far too large afterwards.

    A warning is given when training ends before the folding. Epochs are counted from 0 in each call
    of `fit()`, unless `initial_epoch` is given.

    Gains that are trained are refused, because the optimizer has state for them. Other gains are
    merged into the kernels. Moving averages of weights are refused, because they are those of raw
    kernels.

    Weights that were saved before the folding do not fit the model afterwards, and those saved
    afterwards do not fit a model that is still conditioned. Loading either gives a warning.
    `keras.callbacks.BackupAndRestore` can therefore not be used. With
    `keras.callbacks.EarlyStopping(restore_best_weights=True)`, pass `start_from_epoch=after` to it,
    because weights that it restores from before the folding give no warning.

    Args:
        after: Positive integer. The number of epochs with conditioning, counted from epoch 0 of
            `fit()`.

    Raises:
        ValueError: `after` is not a positive integer. When training begins, the model has no
            conditioned layer, a gain is trained, or the optimizer has moving averages.

    Examples:
        >>> from keras_wcond import condition_model
        >>> layers = [keras.layers.Dense(8), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((6,)), *layers])
        >>> model = condition_model(model, "newton_orthogonalization", gain="kernel_norm")
        >>> model.compile("sgd", "mse")
        >>> history = model.fit(
        ...     np.ones((4, 6)), np.ones((4, 2)), epochs=3, verbose=0,
        ...     callbacks=[FoldConditioning(after=2)],
        ... )
        >>> model.layers[0].kernel_conditioner is None
        True
    """

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = positive_integer("after", after)
        self._folded: keras.Model | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # A model that is built by its first step has no layers to look at before.
        if self.model.built and self.model is not self._folded:
            self._require_foldable(conditioned_layers(self.model))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch < self.after or self.model is self._folded:
            return
        layers = conditioned_layers(self.model)
        self._require_foldable(layers)
        self._folded = self.model
        for layer in reversed(layers):  # Projections before the attention layer around them.
            layer.fold_in_place()
            layer.is_folded = True
        # What was compiled conditions the kernels still.
        self.model.make_train_function(force=True)
        self.model.make_test_function(force=True)
        self.model.make_predict_function(force=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.model is not self._folded:
            warnings.warn(
                f"The model is still conditioned, because `fit()` ended before epoch {self.after}, "
                "at which `FoldConditioning` folds it. Train for more epochs than `after`. Where "
                "one `fit()` continues another, pass `initial_epoch`.",
                stacklevel=2,
            )

    def _require_foldable(self, layers: Sequence[Any]) -> None:
        trained = [
            layer.name for layer in layers if any(gain.trainable for gain in layer.gain_weights)
        ]
        if trained:
            raise ValueError(
                "Expected gains that are not trained, since the optimizer has state for those "
                f"that are. Received: trainable gains in the layers {trained}. Use "
                "`trainable_gain=None`, or `fold_model()` and compile the plain model."
            )
        if not layers:
            raise ValueError(
                "Expected a model with conditioned layers. Received: "
                f"model.name={self.model.name!r}, which has none. Convert it by "
                "`condition_model()`, or leave the callback out if the model was folded before."
            )
        for optimizer in _with_inner_ones(self.model.optimizer):
            if getattr(optimizer, "use_ema", False):
                raise ValueError(
                    "Expected an optimizer without moving averages of the weights, which are those "
                    "of raw kernels when the kernels are folded. Received: "
                    f"{type(optimizer).__name__} with use_ema=True."
                )


def _with_inner_ones(optimizer: Any) -> Iterator[Any]:
    """An optimizer and those inside it, as in `LossScaleOptimizer` and `MultiOptimizer`."""
    yield optimizer
    inner = getattr(optimizer, "inner_optimizer", None)
    for each in [*([] if inner is None else [inner]), *getattr(optimizer, "optimizers", [])]:
        yield from _with_inner_ones(each)


class ConditioningMonitor(keras.callbacks.Callback):
    """Measures the condition of a model's kernels during training.

    It measures every kernel that `conditioning_report()` lists, before the first step, and then
    at regular intervals of epochs or steps:

    - `raw_effective_condition_number` and `raw_condition_number`, over the numerical rank and
      over all singular values, of the stored kernel, or with LoRA of the merged one.
    - `effective_condition_number` and `condition_number`, likewise, of the kernel that the layer
      multiplies by.
    - `numerical_rank`, `largest_singular_value` and `row_norm_spread`, of the same kernel. The
      spread is the largest norm of a row divided by the smallest.
    - `relative_update`, `‖W - W′‖_F / ‖W′‖_F`, the change of the stored kernel W since the
      previous measurement.

    A model that is built by its first step has its first measurement after the first interval.
    Another call of `fit()` with the same callback continues the records.

    For a kernel that is several matrices, each measure is that of the worst matrix. The model is
    not changed, and trains exactly as without the callback. A measurement takes a singular value
    decomposition of each kernel, or two if it is conditioned, in float64 on the host, and keeps a
    copy of each kernel. This takes 3 to 5 seconds for ResNet50 on two cores.

    Args:
        every: Integer, the number of epochs or steps between measurements. Defaults to 1.
        unit: `"epoch"` or `"step"`. A step is a batch. Defaults to `"epoch"`.
        csv_path: Path of a CSV file with a row per kernel and measurement, or None. Defaults to
            None.
        log_dir: Folder for TensorBoard event files, or None. The scalars are named
            `<measure>/<path of the kernel>`, and their steps are steps of the optimizer. This
            needs TensorBoard, but not TensorFlow. Defaults to None.
        plot_path: Path of a picture that is saved when training ends, or None. This needs
            Matplotlib. Defaults to None.

    Raises:
        ValueError: `every` is not a positive integer, or `unit` is another word.

    Attributes:
        records: List of dicts, one per kernel and measurement, which make a data frame. Each has
            `epoch`, the number of complete epochs, `step`, the number of steps of the optimizer,
            `kernel`, the path of the kernel, and the measures. The `relative_update` of the
            first measurement is NaN.
        seconds: Float, the time in seconds that all measurements have taken so far.

    Measurements during and after training are also in the `History` that `fit()` returns, under
    `<path of the kernel>/<measure>`.

    Examples:
        >>> monitor = ConditioningMonitor()
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="last")])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((4, 3)), np.zeros((4, 2))
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[monitor])
        >>> [(record["epoch"], record["kernel"]) for record in monitor.records]
        [(0, 'last/kernel'), (1, 'last/kernel'), (2, 'last/kernel')]
        >>> len(history.history["last/kernel/effective_condition_number"])
        2
    """

    def __init__(
        self,
        every: int = 1,
        unit: Literal["epoch", "step"] = "epoch",
        csv_path: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        plot_path: str | os.PathLike[str] | None = None,
    ):
        super().__init__()
        self.every = positive_integer("every", every)
        if unit not in ("epoch", "step"):
            raise ValueError(f"Expected `unit` to be 'epoch' or 'step'. Received: unit={unit!r}")
        self.unit = unit
        self.csv_path = csv_path
        self.log_dir = log_dir
        self.plot_path = plot_path
        self.records: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._kernels: list[Kernel] = []
        self._previous: dict[str, np.ndarray] = {}
        self._csv: CSVFile | None = None
        self._events: EventFile | None = None
        self._epoch = self._seen = self._seen_before_epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._seen = self._seen_before_epoch = 0
        self._kernels = []
        if self.csv_path is not None:
            columns = ["epoch", "step", "kernel", *MEASURES]
            self._csv = CSVFile(self.csv_path, columns, append=bool(self.records))
        if self.log_dir is not None:
            self._events = EventFile(self.log_dir)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        is_built = all(layer.built for layer in all_layers(self.model))
        if is_built and not self._kernels:
            self._measure(in_history=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # One call may follow several batches.
        seen_before, self._seen = self._seen, self._seen_before_epoch + batch + 1
        if self.unit == "step" and self._seen // self.every > seen_before // self.every:
            self._measure()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen_before_epoch = self._seen
        self._epoch = epoch + 1
        if self.unit == "epoch" and (epoch + 1) % self.every == 0:
            self._measure()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for output in (self._csv, self._events):
            if output is not None:
                output.close()
        if self.plot_path is not None:
            self.plot(self.plot_path)

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws measures over training, with a line per kernel. This needs Matplotlib.

        Condition numbers are effective ones, over the numerical rank.

        Args:
            path: File to save the picture to, or None. Defaults to None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        drawn = tuple(measure for measure in MEASURES if measure not in _NOT_DRAWN)
        return draw_measurements(self.records, drawn, self.unit, self.seconds, path)

    def _measure(self, in_history: bool = True) -> None:
        began = time.perf_counter()
        # On JAX, reading `self.model` brings its weights up to date.
        model = self.model
        self._kernels = self._kernels or model_kernels(model)
        step = int(model.optimizer.iterations) if model.optimizer else self._seen
        if not in_history and self.records and self.records[-1]["step"] == step:
            return  # It was measured when training ended the last time.
        records = [self._record(step, kernel) for kernel in self._kernels]
        self.records += records
        history = getattr(model, "history", None)
        if in_history and history is not None:
            for record in records:
                for measure in MEASURES:
                    key = f"{record['kernel']}/{measure}"
                    history.history.setdefault(key, []).append(record[measure])
        if self._csv is not None:
            self._csv.write(records)
        if self._events is not None:
            scalars = {f"{m}/{r['kernel']}": r[m] for m in MEASURES for r in records}
            known = {tag: value for tag, value in scalars.items() if not math.isnan(value)}
            self._events.write(known, step)
        self.seconds += time.perf_counter() - began

    def _record(self, step: int, kernel: Kernel) -> dict[str, Any]:
        found, path = values(kernel), kernel.path
        before = after = Spectrum.of_matrices(found.raw, found.epsilon)
        if found.effective is not found.raw:
            after = Spectrum.of_matrices(found.effective, found.epsilon)
        previous = self._previous.get(path)
        # Single precision takes half of the memory.
        is_double = found.epsilon <= np.finfo("float64").eps
        self._previous[path] = found.raw if is_double else found.raw.astype("float32")
        return {
            "epoch": self._epoch,
            "step": step,
            "kernel": path,
            "raw_effective_condition_number": float(before.effective_condition_numbers().max()),
            "effective_condition_number": float(after.effective_condition_numbers().max()),
            "numerical_rank": int(after.numerical_ranks().min()),
            "raw_condition_number": float(before.condition_numbers().max()),
            "condition_number": float(after.condition_numbers().max()),
            "largest_singular_value": float(after.values.max()),
            "row_norm_spread": row_norm_spread(found.effective),
            "relative_update": _relative_change(found.raw, previous),
        }


def _relative_change(array: np.ndarray, previous: np.ndarray | None) -> float:
    if previous is None or previous.shape != array.shape:
        return math.nan
    array, previous = array.astype("float64"), previous.astype("float64")
    change, norm = np.linalg.norm(array - previous), np.linalg.norm(previous)
    return float(change / norm) if norm > 0.0 else (0.0 if change == 0.0 else math.inf)
