import math
import time
from typing import Any

import keras
import numpy as np

from keras_wcond.arguments import positive_integer
from keras_wcond.diagnostics.model_kernels import model_kernels, values
from keras_wcond.diagnostics.plots import draw_measurements
from keras_wcond.diagnostics.report import row_norm_spread
from keras_wcond.diagnostics.scalar_files import CSVFile, EventFile
from keras_wcond.diagnostics.spectrum import Spectrum
from keras_wcond.kernels.search import Kernel, all_layers

# The condition numbers over the numerical rank first, as the report shows them.
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
# Where a method takes a rank, the smallest singular value is a rounding error, and so is κ.
_NOT_DRAWN = {"raw_condition_number", "condition_number"}


class ConditioningMonitor(keras.callbacks.Callback):
    """Follows the condition of a model's kernels while it trains.

    For every kernel, as `conditioning_report()` finds them, it measures before the first
    step, and from then on every so many epochs or steps:

    - `raw_effective_condition_number` and `raw_condition_number`, over the numerical rank and
      over all singular values, of the kernel as it is stored (with LoRA, of the merged one);
    - `effective_condition_number` and `condition_number`, likewise, `numerical_rank`,
      `largest_singular_value` and `row_norm_spread` (the largest norm of a row over the
      smallest), of the kernel as the layer multiplies by it;
    - `relative_update`, `‖W - W′‖_F / ‖W′‖_F`, by how much the stored kernel has changed
      since the measurement before.

    A model that is only built by its first step is measured from the first time on that is
    due. Another call of `fit()` with the same callback goes on where the last one ended.

    Of a kernel that is several matrices, the worst one counts. The model is only read:
    training goes on exactly as without the callback. A measurement takes a singular value
    decomposition of each kernel, two where it is conditioned, in float64 on the host, and
    keeps a copy of each kernel: some 3 to 5 seconds for ResNet50 on two cores. `seconds`
    says what all of them took.

    Args:
        every: Integer, how many epochs or steps lie between measurements.
        unit: `"epoch"` or `"step"`, a step being a batch.
        csv_path: Where to write a CSV file with a row per kernel and measurement, or None.
        log_dir: Folder for TensorBoard's event files, or None. The scalars are called
            `<measure>/<path of the kernel>`, and their steps are those of the optimizer.
            This takes TensorBoard, and no TensorFlow.
        plot_path: Where to save a picture when training ends, or None. This takes
            Matplotlib.

    Attributes:
        records: List of dicts, one per kernel and measurement, with `epoch`, `step`,
            `kernel` and the measures, which make a data frame. `epoch` counts those that
            are complete, `step` the optimizer's. The `relative_update` of the first
            measurement is NaN.
        seconds: Float, the time that measurements have taken so far.

    What is measured during and after training is in the `History` that `fit()` returns as
    well, under `<path of the kernel>/<measure>`.

    Example:

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
        unit: str = "epoch",
        csv_path: Any = None,
        log_dir: Any = None,
        plot_path: Any = None,
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

    def on_train_begin(self, logs: Any = None) -> None:
        self._seen = self._seen_before_epoch = 0
        self._kernels = []
        if self.csv_path is not None:
            columns = ["epoch", "step", "kernel", *MEASURES]
            self._csv = CSVFile(self.csv_path, columns, append=bool(self.records))
        if self.log_dir is not None:
            self._events = EventFile(self.log_dir)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        is_built = all(layer.built for layer in all_layers(self.model))
        if is_built and not self._kernels:
            self._measure(in_history=False)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # One execution may be of several batches.
        seen_before, self._seen = self._seen, self._seen_before_epoch + batch + 1
        if self.unit == "step" and self._seen // self.every > seen_before // self.every:
            self._measure()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._seen_before_epoch = self._seen
        self._epoch = epoch + 1
        if self.unit == "epoch" and (epoch + 1) % self.every == 0:
            self._measure()

    def on_train_end(self, logs: Any = None) -> None:
        for output in (self._csv, self._events):
            if output is not None:
                output.close()
        if self.plot_path is not None:
            self.plot(self.plot_path)

    def plot(self, path: Any = None) -> Any:
        """Draws measures over training, a line per kernel.

        Condition numbers are those over the numerical rank.

        Args:
            path: Where to save the picture, or None.

        Returns:
            The `matplotlib.figure.Figure`.
        """
        drawn = tuple(measure for measure in MEASURES if measure not in _NOT_DRAWN)
        return draw_measurements(self.records, drawn, self.unit, self.seconds, path)

    def _measure(self, in_history=True):
        began = time.perf_counter()
        # On JAX, asking for the model is what brings its weights up to date.
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

    def _record(self, step, kernel):
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


def _relative_change(array, previous):
    if previous is None or previous.shape != array.shape:
        return math.nan
    array, previous = array.astype("float64"), previous.astype("float64")
    change, norm = np.linalg.norm(array - previous), np.linalg.norm(previous)
    return float(change / norm) if norm > 0.0 else (0.0 if change == 0.0 else math.inf)
