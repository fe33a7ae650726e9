"""Names, signatures and docstrings of the conditioned classes, as people see them."""

import abc
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_wcond.internals import MODULES_THAT_SHOW_NAMES

_CONDITIONING = """\
    kernel_conditioner: None, a name, a config, an instance or a class of a conditioner, or a
        list of these. None is exactly the plain layer. Defaults to `"row_equilibration"`.
    gain: Factor of each conditioned kernel. Defaults to 1.

        - A positive number.
        - `"auto"`: `1/√E[φ(z)²]`, z ~ N(0, 1), for the activation φ that the layer is created
          with (√2 for ReLU, 1 without an activation). Kernels of methods that do not give rows
          a mean square norm of 1 are scaled to that first.
        - `"initial_norm"`: the number that keeps the Frobenius norm that the kernel was
          initialized with, a non-trainable weight. With `trainable_gain="per_unit"`, it keeps
          the norm of each row.
        - `"kernel_norm"`: `‖W‖_F / ‖C(W)‖_F` in each step, differentiated through. The scale
          stays that of the raw kernel, and only its spectrum is conditioned.
    trainable_gain: None, `"scalar"` for one trainable factor, or `"per_unit"` for one per
        output unit. The factor starts at the gain (for `"kernel_norm"`, it starts at 1 and
        multiplies the gain). `"per_unit"` makes row equilibration into weight normalization,
        and can undo the conditioning. Defaults to None.
"""
_ARGUMENTS = """Args:
    *args: The arguments of `keras.layers.{plain}`, in the same order.
{conditioning}
Weights, inputs and outputs have the names and shapes of the Keras layer. The weights are the raw
kernels: regularizers, the optimizer and weight files see these.

"""
_REFERENCE = """

Reference:

- [Saratchandran, Wang and Lucey, 2024](https://arxiv.org/abs/2409.03424)
"""


class ConditionedType(abc.ABCMeta, type(keras.layers.Layer)):  # type: ignore[misc]
    """The metaclass of the conditioned layer classes, which may also extend abstract classes.

    Keras addresses the weights in a file by the `__name__` of classes (`layers/dense_1/vars`).
    A conditioned layer therefore shares files with the plain one only if both have one `__name__`.
    Where Keras or `help()` shows the name to people, it is the name that the class is imported by.
    """

    def _name(cls) -> str:
        imported: str = cls.__qualname__.rpartition(".")[2]
        stored: str = type.__dict__["__name__"].__get__(cls)
        is_shown = sys._getframe(1).f_globals.get("__name__") in MODULES_THAT_SHOW_NAMES
        return imported if is_shown else stored

    __name__ = property(_name, type.__dict__["__name__"].__set__)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The arguments of the Keras layer as installed, then those of conditioning."""
        constructor = next(
            vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)
        )
        if constructor.__module__.rpartition(".")[0] != __package__:
            raise AttributeError("__signature__")  # A class with arguments of its own.
        return _with_arguments_of(plain_class(cls), cls._arguments)


def plain_class(cls: type) -> type[keras.layers.Layer]:
    """The Keras layer that a conditioned layer extends."""
    layers = (base for base in cls.__mro__ if issubclass(base, keras.layers.Layer))
    return next(base for base in layers if not isinstance(base, ConditionedType))


def keyword_arguments(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The keyword-only arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    return [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]


def _with_arguments_of(
    plain: type[keras.layers.Layer], ours: Sequence[inspect.Parameter]
) -> inspect.Signature:
    own = inspect.signature(plain).parameters
    variadic = [each for each in own.values() if each.kind is inspect.Parameter.VAR_KEYWORD]
    positional = [
        each for each in own.values() if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    # `**kwargs` of a Keras layer are arguments of its base class.
    base = keyword_arguments(keras.layers.Layer.__init__) if variadic else []
    keywords = [*keyword_arguments(plain), *ours, *(each for each in base if each.name not in own)]
    return inspect.Signature([*positional, *keywords, *variadic])


def document(cls: type[keras.layers.Layer]) -> None:
    """Adds the arguments of conditioning and the reference to a conditioned layer's docstring."""
    head, separator, example = inspect.cleandoc(cls.__doc__ or "").partition("Examples:")
    if "Args:" in head:  # A class with arguments of its own, which lists them.
        head = head.replace("    <arguments of conditioning>\n", _CONDITIONING)
    else:
        plain = plain_class(cls).__name__
        head += _ARGUMENTS.format(plain=plain, conditioning=_CONDITIONING)
    cls.__doc__ = head + separator + example + _REFERENCE
