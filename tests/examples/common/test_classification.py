"""The smoothed cross-entropy, against its formula."""

import keras
import numpy as np
import pytest

from tests.examples.loading import example


def test_labels_are_smoothed():
    smoothed = example("common.classification").SmoothedCrossentropy(4, 0.2)
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, 3.0, -2.0]], "float32")
    labels = np.array([0, 2], "int32")
    logarithms = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    targets = 0.8 * np.eye(4)[labels] + 0.05
    expected = -(targets * logarithms).sum(axis=-1).mean()
    for shape in ((2,), (2, 1)):
        value = smoothed(labels.reshape(shape), keras.ops.convert_to_tensor(logits))
        assert float(value) == pytest.approx(expected, rel=1e-5)
