"""Camera poses, and the directions of pixels."""

import numpy as np
import pytest

from tests.examples.loading import example


def test_cameras_look_at_their_target():
    cameras = example("common.cameras")
    pose = cameras.looking_at((1.0, -2.0, 1.5), (0.1, 0.2, 0.3))
    np.testing.assert_allclose(pose[:, :3].T @ pose[:, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:, :3]) == pytest.approx(1.0)
    towards = np.array([0.1, 0.2, 0.3]) - pose[:, 3]
    np.testing.assert_allclose(-pose[:, 2], towards / np.linalg.norm(towards))
    # The rays of the four pixels in the middle surround that direction.
    directions = cameras.camera_directions(4, 4, 5.0)[1:3, 1:3].reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(directions[:2], 0.0, atol=1e-12)
