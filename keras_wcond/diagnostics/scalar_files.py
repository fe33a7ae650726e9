"""CSV files and TensorBoard event files of measurements during training."""

import csv
import os
import pathlib
from typing import Any


class CSVFile:
    """A CSV file with a header, flushed after each call of `write()`."""

    def __init__(self, path: str | os.PathLike[str], columns: list[str], append: bool = False):
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
    """Scalars for TensorBoard, written by the package `tensorboard` without TensorFlow."""

    def __init__(self, folder: str | os.PathLike[str]):
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
