"""Rendering of rays through known fields, and sampling along a ray."""

import dataclasses

import keras
import numpy as np
import pytest

from tests.examples.loading import example


@pytest.fixture(scope="module")
def rays(traced):
    return traced.rays(traced.test)[0][:20]


def constant_field(density, color):
    """A field that is the same everywhere, before its activations."""
    # The inverse of softplus, which is the identity far from zero.
    raw = 1.0 + (np.log(np.expm1(density)) if density < 50.0 else density)
    logits = np.log(np.array(color) / (1.0 - np.array(color)))

    def field(encoded):
        n = keras.ops.shape(encoded[0])[0]
        row = keras.ops.convert_to_tensor(np.array([[raw, *logits]], "float32"))
        return keras.ops.broadcast_to(row, (n, 4))

    return field


def test_views_are_rendered_as_their_rays_are(traced):
    nerf = example("nerf")
    options = nerf.Options(depth=2, width=8, coarse_samples=4, fine_samples=4)
    model = nerf.build("none", traced, options)
    colors, depths = nerf.render(model, traced, traced.test, batch_size=100)
    assert (colors.shape, depths.shape) == ((2, 16, 16, 3), (2, 16, 16))
    rays, _ = traced.rays(traced.test)
    expected = model.predict(rays, batch_size=len(rays), verbose=0)
    np.testing.assert_allclose(colors.reshape(-1, 3), expected["fine"], atol=1e-4)
    np.testing.assert_allclose(depths.reshape(-1), expected["depth"], atol=1e-3)


def test_a_fog_absorbs_exponentially(traced, rays):
    nerf, rendering = example("nerf"), example("common.rendering")
    fog = constant_field(0.4, (0.2, 0.5, 0.7))
    model = rendering.RadianceField(
        fog, fog, traced, nerf.Options(coarse_samples=8, fine_samples=8)
    )
    for part in model.render(keras.ops.convert_to_tensor(rays)):
        result = {name: keras.ops.convert_to_numpy(value) for name, value in part.items()}
        # Absorption begins at the first sample, and is exact from there to the end.
        first = 1.5 + 3.0 * 0.5 / 8
        length = 4.5 - first
        at_least, opacity = 1.0 - np.exp(-0.4 * (length - 0.1)), 1.0 - np.exp(-0.4 * (length + 0.2))
        assert (at_least <= result["opacity"]).all()
        assert (result["opacity"] <= opacity).all()
        np.testing.assert_allclose(result["weights"].sum(axis=-1), result["opacity"], rtol=1e-5)
        expected = result["opacity"][:, None] * np.array([0.2, 0.5, 0.7])
        expected = expected + (1.0 - result["opacity"])[:, None]
        np.testing.assert_allclose(result["color"], expected, rtol=1e-5)
        assert (result["depth"] > 1.5).all()
        assert (result["depth"] < 4.5).all()


def test_what_is_seen_is_what_the_fields_render(traced, rays):
    nerf, rendering = example("nerf"), example("common.rendering")
    fields = constant_field(0.4, (0.2, 0.5, 0.7)), constant_field(0.8, (0.6, 0.3, 0.1))
    model = rendering.RadianceField(*fields, traced, nerf.Options(coarse_samples=8, fine_samples=8))
    rays = keras.ops.convert_to_tensor(rays)
    coarse, fine = model.render(rays)
    expected = {"coarse": coarse["color"], "fine": fine["color"], "depth": fine["depth"]}
    for name, value in model(rays).items():
        value, own = map(keras.ops.convert_to_numpy, (value, expected.pop(name)))
        np.testing.assert_allclose(value, own, rtol=1e-5)
    assert not expected


def test_empty_space_shows_the_background(traced, rays):
    nerf, rendering = example("nerf"), example("common.rendering")
    empty = constant_field(1e-9, (0.2, 0.5, 0.7))
    model = rendering.RadianceField(empty, empty, traced, nerf.Options())
    colors = model(rays)
    for part in ("coarse", "fine"):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(colors[part]), 1.0, atol=1e-6)
    _, fine = model.render(keras.ops.convert_to_tensor(rays))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(fine["depth"]), 4.5, atol=1e-6)


def test_samples_without_end_are_even_in_inverse_distance(traced, rays):
    nerf, rendering = example("nerf"), example("common.rendering")
    scene = dataclasses.replace(traced, near=1.0, far=50.0, background=None)
    wall = constant_field(1e6, (0.2, 0.5, 0.7))
    model = rendering.RadianceField(
        wall, wall, scene, nerf.Options(coarse_samples=4, fine_samples=4)
    )
    coarse, _ = model.render(keras.ops.convert_to_tensor(rays))
    # All is absorbed at the first sample, in the middle of the first quarter.
    expected = 1.0 / (7 / 8 * 1.0 + 1 / 8 / 50.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(coarse["depth"]), expected, rtol=1e-5)


def test_fine_samples_follow_the_weights():
    rendering = example("common.rendering")
    edges = keras.ops.linspace(0.0, 1.0, 6)
    levels = np.linspace(0.01, 0.99, 50, dtype="float32")[None].repeat(2, axis=0)
    weights = np.array([[1, 1, 1, 1, 1], [0, 0, 3, 0, 1]], "float32")
    positions = rendering.sample_where(edges, *map(keras.ops.convert_to_tensor, (weights, levels)))
    even, uneven = keras.ops.convert_to_numpy(positions)
    np.testing.assert_allclose(even, levels[0], atol=1e-5)
    # NumPy's own inverse of a piecewise linear cumulative distribution.
    density = weights[1] + 1e-4
    cumulative = np.concatenate([[0.0], np.cumsum(density / density.sum())])
    np.testing.assert_allclose(
        uneven, np.interp(levels[1], cumulative, np.linspace(0, 1, 6)), atol=1e-3
    )
