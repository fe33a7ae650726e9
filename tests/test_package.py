"""Promises about the package as a whole: what it imports, exports and says of itself."""

import ast
import dataclasses
import graphlib
import inspect
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_wcond

PACKAGE = pathlib.Path(keras_wcond.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """The modules that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


# What is imported where it is needed, and nowhere else.
OPTIONAL = {
    "backends/jax.py": {"jax"},
    "backends/tensorflow.py": {"tensorflow"},
    **{
        f"backends/torch/{n}.py": {"torch"}
        for n in ("derivatives", "kernels", "products", "tensors")
    },
    "diagnostics/data_frames.py": {"pandas"},
    "diagnostics/plots.py": {"matplotlib"},
    "diagnostics/scalar_files.py": {"tensorboard"},
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_what_is_installed(path):
    allowed = {"keras", "keras_wcond", "ml_dtypes", "numpy", "rich"} | sys.stdlib_module_names
    allowed |= OPTIONAL.get(path.relative_to(PACKAGE).as_posix(), set())
    assert {name.split(".")[0] for name in imported(path)} <= allowed


def test_import_in_a_fresh_process_exports_what_it_lists_and_brings_nothing_optional_in():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_wcond; "
        f"print({set.union(*OPTIONAL.values())} & (set(sys.modules) - before)); "
        "print([name for name in keras_wcond.__all__ if not hasattr(keras_wcond, name)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n") == ["set()", "[]", ""]


def test_private_parts_of_keras_are_reached_in_one_place():
    reaching = {
        path.name for path in MODULES for name in imported(path) if name.startswith("keras.src")
    }
    assert reaching == {"internals.py"}


def test_one_place_asks_which_backend_is_in_force():
    calls = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "backend"
        if not (isinstance(node.value, ast.Name) and node.value.id == "keras")
    }
    assert calls == {"backends/__init__.py"}


def modules_imported(path):
    """The package's own modules that one of them imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module.split(".")[0] != "keras_wcond":
            continue
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in NAMES else node.module


def name_of(path):
    parts = ("keras_wcond", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: set(modules_imported(path)) for name, path in NAMES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # Which raises for a circle.


def test_the_root_is_one_screen():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 18


def test_a_formed_kernel_takes_few_files():
    layer, x = keras_wcond.ConditionedDense(16), keras.ops.ones((4, 8))
    layer(x)
    files = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            files.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        layer(x)
    finally:
        sys.setprofile(before)
    assert len(files) <= 8, sorted(files)


def test_every_public_name_is_documented():
    for name in keras_wcond.__all__:
        assert getattr(keras_wcond, name).__doc__, name


CALLABLES = [
    *(getattr(keras_wcond, name) for name in keras_wcond.__all__ if name != "conditioners"),
    *(getattr(keras_wcond.conditioners, name) for name in keras_wcond.conditioners.__all__),
]
# Records that functions return are documented by their attributes.
CALLABLES = [each for each in CALLABLES if callable(each) and not dataclasses.is_dataclass(each)]
CALLABLES.append(keras_wcond.KernelLayout)


@pytest.mark.parametrize("public", CALLABLES, ids=lambda public: public.__qualname__)
def test_every_argument_is_named_and_documented_with_its_default(public):
    signature = inspect.signature(public)
    assert not any(each.kind is each.VAR_POSITIONAL for each in signature.parameters.values())
    own = inspect.signature(public.__init__) if inspect.isclass(public) else signature
    documented = arguments(inspect.getdoc(public))
    for name, parameter in own.parameters.items():
        if name in ("self", "args", "kwargs") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        assert name in documented
        if parameter.default is not parameter.empty:
            assert "efault" in documented[name], name


def arguments(docstring):
    """The description of each argument in a docstring of Google's form."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", docstring + "\n", flags=re.M)
    text = section.group(1) if section else ""
    return dict(re.findall(r"^    (\w+): ((?:.*\n)(?:        .*\n|\n)*)", text, flags=re.M))


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
