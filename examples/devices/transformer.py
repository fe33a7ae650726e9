"""A small conditioned transformer on scanned digits, for the examples on many devices."""

import keras
import numpy as np
from sklearn import datasets

import keras_wcond

CLASSES, TOKENS, SIZE, HEADS = 10, 8, 64, 4


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images as 8 tokens of 8 pixels in [-1, 1], and their labels."""
    images, labels = datasets.load_digits(return_X_y=True)
    return (images / 8.0 - 1.0).reshape(-1, TOKENS, 8).astype("float32"), labels.astype("int32")


def transformer(conditioner: str | None = "row_equilibration", blocks: int = 2) -> keras.Model:
    """Every layer but the first and the last is conditioned; names are for layout maps."""
    keras.utils.set_random_seed(0)
    settings = {"kernel_conditioner": conditioner}
    inputs = keras.Input((TOKENS, 8))
    x = keras.layers.Dense(SIZE, name="embedding")(inputs)
    for i in range(blocks):
        y = keras.layers.LayerNormalization()(x)
        attention = keras_wcond.ConditionedMultiHeadAttention(
            HEADS, SIZE // HEADS, name=f"attention_{i}", **settings
        )
        x = keras.layers.Add()([x, attention(y, y)])
        y = keras.layers.LayerNormalization()(x)
        y = keras_wcond.ConditionedDense(
            8 * SIZE, activation="gelu", gain="auto", name=f"expand_{i}", **settings
        )(y)
        y = keras_wcond.ConditionedDense(SIZE, name=f"contract_{i}", **settings)(y)
        x = keras.layers.Add()([x, y])
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.LayerNormalization()(x))
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="head")(x))


def compiled(model: keras.Model, rate: float = 0.05) -> keras.Model:
    """The model, ready for `fit()` with momentum."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    return model


def batches(size: int, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first batches of the digits, in their order."""
    images, labels = load_digits()
    return [(images[i : i + size], labels[i : i + size]) for i in range(0, size * number, size)]
