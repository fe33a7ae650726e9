"""Models in `.keras` files: reading without running code from them, and writing."""

import importlib
import json
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Sequence

import keras

_CONFIG = "config.json"


def import_modules(names: Sequence[str]) -> None:
    """Imports modules, which register classes and functions with Keras."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ImportError(
                "Expected `--import` to name a module that can be imported. Received: --import "
                f"{name}, with {type(error).__name__}: {error}. Run the command in the folder of "
                "the module, or add the folder to PYTHONPATH."
            ) from error


def read_model(path: pathlib.Path) -> keras.Model:
    """The model in a `.keras` file, not compiled.

    Args:
        path: The path of the file.

    Returns:
        A `keras.Model`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another file, or Keras cannot load it.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"Expected the path of a saved model. Received: {path}, which does not exist."
        )
    if path.suffix != ".keras" or _config(path) is None:
        raise ValueError(
            f"Expected a model that is saved as a `.keras` file. Received: {path}, which is not "
            "one. Save the whole model by `model.save('model.keras')`."
        )
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Layers may raise anything.
        raise ValueError(_why_not_read(path, str(error))) from error


def is_compiled(path: pathlib.Path) -> bool:
    """Whether the model in a `.keras` file was saved with its loss and optimizer."""
    config = json.loads(_config(path) or "{}")
    return bool(config.get("compile_config"))


def require_free(path: pathlib.Path, overwrite: bool) -> None:
    """Raises if there is a file in the way, or no folder for it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of the output to exist. Received: {path}. Create {path.parent} "
            "first."
        )
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(
            f"Expected the output not to exist yet. Received: {path}. Choose another name, or "
            "pass `--overwrite` to replace the file."
        )


def write_model(model: keras.Model, path: pathlib.Path) -> None:
    """Saves a model. A file that it replaces is kept if this fails."""
    target = path.resolve()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        complete = pathlib.Path(folder, target.name)
        model.save(complete)
        complete.replace(target)


def _config(path: pathlib.Path) -> bytes | None:
    """The config of the model in a `.keras` file, or None for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(_CONFIG)
    except (zipfile.BadZipFile, KeyError, IsADirectoryError):
        return None


def _why_not_read(path: pathlib.Path, message: str) -> str:
    unknown = re.search(r"Could not locate (?:class|function) '[^']+'", message)
    if unknown:
        found = unknown[0].removeprefix("Could not locate ")
        return (
            f"Expected all classes and functions of the model to be known. Received: {path}, with "
            f"{found}. Pass the module that registers it with "
            "`@keras.saving.register_keras_serializable()`, as in `--import my_layers`."
        )
    if "safe_mode" in message:
        return (
            f"Expected a model without code in its file. Received: {path}, with a lambda or "
            "another object that Keras restores by running code. Replace it by a registered "
            "function or layer, and pass the module that registers it by `--import`."
        )
    # Keras repeats the config of the model before the cause, or that of an object behind it.
    cause = message.rpartition("Exception encountered:")[2].strip().partition("\n")[0]
    cause = cause.partition(" Full object config")[0]
    return f"Expected a model that Keras can load. Received: {path}, for which Keras says: {cause}"
