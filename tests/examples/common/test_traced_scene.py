"""Colors and shadows of the traced scene."""

import numpy as np

from tests.examples.loading import example


def test_traced_colors_are_those_of_what_a_ray_meets():
    traced_scene = example("common.traced_scene")
    light = traced_scene.LIGHT
    centre, radius, color = traced_scene.SPHERES[0]
    centre = np.array(centre)
    # From the light's side straight at a sphere: lit in full, as seen along the light.
    origin = centre + 3.0 * light
    seen = traced_scene.trace(origin[None], -light[None] / np.linalg.norm(light))
    lit = 0.35 + 0.65 * np.linalg.norm(light)
    np.testing.assert_allclose(seen[0], np.array(color) * lit, rtol=1e-3)
    # Under that sphere the floor is in its shadow, though not to be seen from above.
    assert traced_scene.in_shadow(centre[None] - (radius + 0.02) * light)[0]
    up = traced_scene.trace(origin[None], np.array([[0.0, 0.0, 1.0]]))
    np.testing.assert_array_equal(up[0], 1.0)
