from collections.abc import Sequence
from typing import Any

import keras

from keras_wcond.conditioners.conditioner import Conditioner, ConditionerLike
from keras_wcond.conditioners.registry import get, register_composition
from keras_wcond.linalg.arrays import Tensor


@register_composition
class Sequential(Conditioner):
    """Applies several conditioners, one after the other.

    `Ŵ = C_k(… C₂(C₁(W)))`

    A list given as a `kernel_conditioner` makes a `Sequential` of its items.

    Args:
        conditioners: List of names, configs, instances or subclasses of `Conditioner`, in the
            order in which they are applied.

    Raises:
        ValueError: If `conditioners` is not a list, is empty, or contains None.

    Examples:
        >>> twice = Sequential(["polynomial_preconditioner", "polynomial_preconditioner"])
        >>> kernel = np.diag([1.0, 0.1]).astype("float32")
        >>> print(keras.ops.convert_to_numpy(twice(kernel)).round(2))
        [[1.   0.  ]
         [0.   0.94]]
    """

    def __init__(self, conditioners: Sequence[ConditionerLike]) -> None:
        if not isinstance(conditioners, (list, tuple)) or not conditioners:
            raise ValueError(
                "Expected `conditioners` to be a list of at least one conditioner. Received: "
                f"conditioners={conditioners!r}"
            )
        found = [get(conditioner) for conditioner in conditioners]
        self.conditioners = [conditioner for conditioner in found if conditioner is not None]
        if len(self.conditioners) < len(found):
            raise ValueError(
                "Expected every one of `conditioners` to be a conditioner. Received: "
                f"conditioners={conditioners!r}, with None among them. Leave it out."
            )

    @property
    def has_unit_rows(self) -> bool:  # type: ignore[override]
        return self.conditioners[-1].has_unit_rows

    @property
    def works_on_arrays(self) -> bool:  # type: ignore[override]
        return all(conditioner.works_on_arrays for conditioner in self.conditioners)

    def condition(self, matrices: Tensor) -> Tensor:
        for conditioner in self.conditioners:
            matrices = conditioner.condition_stack(matrices)
        return matrices

    def get_config(self) -> dict[str, Any]:
        return {
            "conditioners": [
                keras.saving.serialize_keras_object(conditioner)
                for conditioner in self.conditioners
            ]
        }

    def __repr__(self) -> str:
        return f"Sequential({self.conditioners!r})"
