"""Scores of the shape example, on a network that is exact and on random outputs."""

import keras
import numpy as np
import pytest

from tests.examples.loading import example

trimesh = pytest.importorskip("trimesh")


def test_scores_of_a_network_that_knows_the_ball():
    shape, solids = example("shape"), example("common.solids")
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.7)
    points, inside = solids.sample(ball, 5000, np.random.default_rng(0), near_surface=0.0)
    part = points, inside[:, None].astype("float32")
    solid = shape.Solid(ball, part, part, part)
    inputs = keras.Input((3,))
    radius = keras.ops.sqrt(keras.ops.sum(inputs**2, axis=-1, keepdims=True))
    options = shape.Options(resolution=48)
    scores = shape.evaluate(keras.Model(inputs, 0.7 - radius), solid, options)
    assert scores["IoU"] > 0.99
    assert scores["Chamfer distance"] < 0.02
    none = shape.evaluate(keras.Model(inputs, -1.0 - radius), solid, options)
    assert none == {"IoU": 0.0, "Chamfer distance": np.inf}


def test_intersection_over_union_of_batches_is_that_of_keras():
    ours = example("shape").IntersectionOverUnion()
    theirs = keras.metrics.BinaryIoU(target_class_ids=[1], threshold=0.0)
    assert float(ours.result()) == 0.0
    rng = np.random.default_rng(0)
    for share in (0.2, 0.7):
        inside = (rng.random((50, 1)) < share).astype("float32")
        logits = rng.normal(size=(50, 1)).astype("float32")
        for metric in (ours, theirs):
            metric.update_state(inside, logits)
    assert 0.1 < float(ours.result()) < 0.9
    assert float(ours.result()) == pytest.approx(float(theirs.result()), rel=1e-6)
    ours.reset_state()
    assert float(ours.result()) == 0.0
