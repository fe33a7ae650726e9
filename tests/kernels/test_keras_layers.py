"""The layouts of the kernels of every Keras layer."""

import keras
import numpy as np
import pytest

from keras_wcond.kernels.keras_layers import kernel_layouts
from tests.helpers import normal, to_numpy

layers = keras.layers


def built(layer, *shape):
    layer.build(shape)
    return layer


def attention(cls, **arguments):
    layer = cls(**arguments)
    layer(normal(2, 3, 8), normal(2, 3, 8))
    return layer


def row_norms(kernel, layout):
    """Norms of the rows of all matrices, as the layout sees them."""
    matrices = layout.to_matrices(np.asarray(kernel, "float64"))
    return np.sqrt(np.einsum("mrc,mrc->mr", matrices, matrices))


# Each case: a layer, the path of a kernel, and the same norms by an einsum written out by
# hand for that kernel, in the order matrices × rows.
CASES = {
    "Dense": (built(layers.Dense(4), None, 3), "kernel", "iu,iu->u", (1, 4)),
    "Conv1D": (built(layers.Conv1D(4, 3), None, 9, 2), "kernel", "kiu,kiu->u", (1, 4)),
    "Conv2D": (built(layers.Conv2D(4, 3), None, 9, 9, 2), "kernel", "hwiu,hwiu->u", (1, 4)),
    "Conv2D, 2 groups": (
        built(layers.Conv2D(6, 3, groups=2), None, 9, 9, 4),
        "kernel",
        "hwiu,hwiu->u",
        (2, 3),
    ),
    "Conv3D": (built(layers.Conv3D(4, 2), None, 5, 5, 5, 2), "kernel", "dhwiu,dhwiu->u", (1, 4)),
    "Conv1DTranspose": (
        built(layers.Conv1DTranspose(4, 3), None, 9, 2),
        "kernel",
        "kui,kui->u",
        (1, 4),
    ),
    "Conv2DTranspose": (
        built(layers.Conv2DTranspose(4, 3), None, 9, 9, 2),
        "kernel",
        "hwui,hwui->u",
        (1, 4),
    ),
    "Conv3DTranspose": (
        built(layers.Conv3DTranspose(4, 2), None, 5, 5, 5, 2),
        "kernel",
        "dhwui,dhwui->u",
        (1, 4),
    ),
    "DepthwiseConv1D": (
        built(layers.DepthwiseConv1D(3, depth_multiplier=2), None, 9, 5),
        "kernel",
        "kcm,kcm->cm",
        (5, 2),
    ),
    "DepthwiseConv2D": (
        built(layers.DepthwiseConv2D(3, depth_multiplier=2), None, 9, 9, 5),
        "kernel",
        "hwcm,hwcm->cm",
        (5, 2),
    ),
    "SeparableConv1D, depthwise": (
        built(layers.SeparableConv1D(4, 3, depth_multiplier=2), None, 9, 5),
        "depthwise_kernel",
        "kcm,kcm->cm",
        (5, 2),
    ),
    "SeparableConv2D, pointwise": (
        built(layers.SeparableConv2D(4, 3), None, 9, 9, 5),
        "pointwise_kernel",
        "hwiu,hwiu->u",
        (1, 4),
    ),
    "EinsumDense": (
        built(layers.EinsumDense("abc,cde->abde", (None, 2, 3)), None, 7, 5),
        "kernel",
        "cde,cde->de",
        (1, 6),
    ),
    "EinsumDense, ellipsis": (
        built(layers.EinsumDense("...x,xy->...y", 3), None, 7, 5),
        "kernel",
        "xy,xy->y",
        (1, 3),
    ),
    "EinsumDense, units first": (
        built(layers.EinsumDense("abc,dc->abd", (None, 3)), None, 7, 5),
        "kernel",
        "dc,dc->d",
        (1, 3),
    ),
    "MultiHeadAttention, query": (
        attention(layers.MultiHeadAttention, num_heads=2, key_dim=3),
        "query/kernel",
        "ihk,ihk->hk",
        (1, 6),
    ),
    "MultiHeadAttention, output": (
        attention(layers.MultiHeadAttention, num_heads=2, key_dim=3),
        "attention_output/kernel",
        "hko,hko->o",
        (1, 8),
    ),
    "GroupQueryAttention, key": (
        attention(layers.GroupQueryAttention, head_dim=3, num_query_heads=4, num_key_value_heads=2),
        "key/kernel",
        "ihk,ihk->hk",
        (1, 6),
    ),
    "SimpleRNN": (
        built(layers.SimpleRNN(4), None, 7, 3),
        "simple_rnn_cell/kernel",
        "iu,iu->u",
        (1, 4),
    ),
    "GRU, recurrent": (
        built(layers.GRU(4), None, 7, 3),
        "gru_cell/recurrent_kernel",
        "iu,iu->u",
        (3, 4),
    ),
    "ConvLSTM2D": (
        built(layers.ConvLSTM2D(4, 3), None, 5, 9, 9, 2),
        f"{layers.ConvLSTM2D(4, 3).cell.name}/kernel",
        "hwiu,hwiu->u",
        (4, 4),
    ),
    "LSTM": (built(layers.LSTM(4), None, 7, 3), "lstm_cell/kernel", "iu,iu->u", (4, 4)),
    "Embedding": (built(layers.Embedding(6, 3), None, 7), "embeddings", "td,td->t", (1, 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_the_units_of_every_keras_kernel(case):
    layer, path, squares, shape = CASES[case]
    kernel = weight_at(layer, path)
    expected = np.sqrt(np.einsum(squares, kernel, kernel)).reshape(shape)
    layout = kernel_layouts(layer)[path]
    np.testing.assert_allclose(row_norms(kernel, layout), expected, rtol=1e-12)


def weight_at(layer, path):
    matching = [weight for weight in layer.weights if f"{layer.path}/{path}" == weight.path]
    return to_numpy(matching[0]).astype("float64")


@pytest.mark.parametrize("case", CASES)
def test_kernel_returns_from_its_matrices(case):
    layer, path, _, _ = CASES[case]
    kernel = weight_at(layer, path).astype("float32")
    layout = kernel_layouts(layer)[path]
    returned = layout.from_matrices(
        layout.to_matrices(keras.ops.convert_to_tensor(kernel)), kernel.shape
    )
    np.testing.assert_array_equal(to_numpy(returned), kernel)


def test_layers_without_a_kernel_have_no_layout():
    assert kernel_layouts(layers.BatchNormalization()) == {}
    assert kernel_layouts(layers.EinsumDense("ab,b->ab", (3,))) == {}


def test_attention_has_to_be_built():
    with pytest.raises(ValueError, match=r"Expected a built MultiHeadAttention"):
        kernel_layouts(layers.MultiHeadAttention(2, 2))
