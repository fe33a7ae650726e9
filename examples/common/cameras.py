"""Views of a scene, and the rays of the cameras that took them.

Cameras look along −z, with x to the right and y up, and a pose is the 3×4 matrix that takes
their coordinates to the world's.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Views:
    """Photographs and where they were taken from.

    Args:
        images: Colors in [0, 1], of shape (n, height, width, 3).
        poses: (n, 3, 4).
    """

    images: np.ndarray
    poses: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """Views of a scene.

    Args:
        train: `Views` to learn from.
        validation: `Views` to choose settings on.
        test: `Views` to score on.
        focal: Focal length, in pixels.
        near: Distance along a ray at which the scene begins.
        far: Distance at which it ends.
        background: Color behind the scene where rays end, or None where they do not.
    """

    train: Views
    validation: Views
    test: Views
    focal: float
    near: float
    far: float
    background: float | None

    def rays(self, views):
        """Origins, directions and colors of all pixels: (n · height · width, 6) and (…, 3)."""
        height, width = views.images.shape[1:3]
        directions = camera_directions(height, width, self.focal).astype("float32")
        poses = views.poses.astype("float32")
        directions = np.einsum("hwc,nrc->nhwr", directions, poses[:, :, :3])
        origins = np.broadcast_to(poses[:, None, None, :, 3], directions.shape)
        rays = np.concatenate([origins, directions], axis=-1).reshape(-1, 6)
        return rays, views.images.reshape(-1, 3).astype("float32")


def camera_directions(height, width, focal):
    """The unit direction through the centre of each pixel, in the camera's coordinates."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    directions = np.stack(
        [(x - width / 2) / focal, -(y - height / 2) / focal, -np.ones_like(x)], axis=-1
    )
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def looking_at(position, target=(0.0, 0.0, 0.0), up=(0.0, 0.0, 1.0)):
    """The pose of a camera at a position that looks at a target."""
    position = np.asarray(position, "float64")
    backward = position - target
    backward /= np.linalg.norm(backward)
    right = np.cross(up, backward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(backward, right), backward, position], axis=-1)
