"""Where measurements go while a model trains: CSV files and TensorBoard's event files."""

import csv
import pathlib
from typing import Any


class CSVFile:
    """A CSV file with a header, complete up to the last row at any time."""

    def __init__(self, path: Any, columns: list[str], append: bool = False):
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a" if append else "w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, columns)
        if not append:
            self._writer.writeheader()
            self._file.flush()

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._writer.writerows(rows)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class EventFile:
    """Scalars for TensorBoard, written by TensorBoard itself, which needs no TensorFlow."""

    def __init__(self, folder: Any):
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ImportError(
                "Expected TensorBoard to be installed, which `log_dir` is written for. Received: "
                f"log_dir={str(folder)!r}. Install it with `pip install tensorboard`; TensorFlow "
                "is not needed."
            ) from error
        self._writer = Writer(str(folder))

    def write(self, scalars: dict[str, float], step: int) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
