"""The base class of the methods that multiply a kernel by a function of itself."""

from typing import Any

from keras_wcond.arguments import boolean
from keras_wcond.conditioners.conditioner import Conditioner
from keras_wcond.linalg.arrays import Tensor
from keras_wcond.linalg.held_constant import held_constant


class Multiplication(Conditioner):
    """Base class of the methods `C(W) = M(W) W`, with a multiplier M that depends on W.

    Args:
        differentiate_multiplier: Boolean. Whether the gradient passes through M. With `False`
            it is that of a product with a constant M. Defaults to `True`.
    """

    def __init__(self, differentiate_multiplier: bool = True) -> None:
        self.differentiate_multiplier = boolean(
            "differentiate_multiplier", differentiate_multiplier
        )

    def multiplier(self, x: Tensor) -> Tensor:
        """The multiplier, or what it is computed from, with its gradient if that is wanted."""
        return x if self.differentiate_multiplier else held_constant(x)

    def get_config(self) -> dict[str, Any]:
        return {"differentiate_multiplier": self.differentiate_multiplier}
