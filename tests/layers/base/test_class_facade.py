"""Conditioned classes show their own names and all of their arguments."""

import inspect
import pydoc

import keras
import pytest

import keras_wcond
from keras_wcond import Conditioned, ConditionedDense
from tests.layers.cases import CASES, every_layer

OURS = ("kernel_conditioner", "gain", "trainable_gain")


@every_layer
def test_signature_is_that_of_the_keras_layer_with_the_arguments_of_conditioning(case):
    plain = inspect.signature(case.plain.__init__).parameters
    names = [name for name in plain if name not in ("self", "kwargs")]
    parameters = inspect.signature(case.conditioned).parameters
    assert list(parameters)[: len(names) + 3] == [*names, *OURS]
    assert {"name", "trainable", "dtype"} <= set(parameters)
    for name in names:
        assert parameters[name].default == plain[name].default
    own = inspect.signature(keras_wcond.ConditionedLayer.__init__).parameters
    assert [parameters[name] for name in OURS] == [own[name] for name in OURS]
    assert inspect.signature(case.conditioned).bind(**case.arguments)


def test_signature_of_a_users_subclass_is_its_own():
    class Halved(ConditionedDense):
        def __init__(self, units):
            super().__init__(units // 2)

    class Renamed(ConditionedDense):
        pass

    assert list(inspect.signature(Halved).parameters) == ["units"]
    assert inspect.signature(Renamed) == inspect.signature(ConditionedDense)
    assert Halved.__name__ == "Halved"


@every_layer
def test_people_read_the_name_of_the_conditioned_class_and_files_have_the_plain_one(case, capsys):
    name = case.conditioned.__qualname__
    layer = case.layer()
    assert type(layer).__name__ == case.plain.__name__
    assert repr(layer).startswith(f"<{name} ")
    assert f"class {name}" in pydoc.plain(pydoc.render_doc(type(layer)))
    case.model(layer).summary(line_length=150)
    assert f"({name})" in capsys.readouterr().out


def test_converted_model_shows_its_conditioned_layers(capsys):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, name="hidden")])
    conditioned = keras_wcond.condition_model(model, layers="hidden")
    conditioned.summary(line_length=100)
    assert "hidden (ConditionedDense)" in capsys.readouterr().out
    (record,) = keras_wcond.conditioning_report(conditioned, methods=[]).records
    assert record["layer"] == "ConditionedDense"


@pytest.mark.parametrize(
    "cls", [*dict.fromkeys(case.conditioned for case in CASES.values()), Conditioned]
)
def test_docstring_has_the_arguments_of_conditioning_once(cls):
    documented = cls.__doc__
    for argument in OURS:
        assert documented.count(f"    {argument}: ") == 1
    assert documented.count("Examples:") == documented.count("Args:") == 1
