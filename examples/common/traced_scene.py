"""A small scene for the radiance field, traced exactly: spheres on a floor."""

import numpy as np

from common.cameras import Scene, Views, camera_directions, looking_at

SPHERES = (
    # centre, radius, color
    ((-0.45, -0.25, -0.05), 0.45, (0.85, 0.25, 0.20)),
    ((0.50, -0.30, -0.20), 0.30, (0.20, 0.45, 0.85)),
    ((0.15, 0.50, -0.15), 0.35, (0.95, 0.75, 0.20)),
)
FLOOR, FLOOR_RADIUS, TILE = -0.5, 1.2, 0.4
LIGHT = np.array([0.4, -0.5, 0.77])
FAR_AWAY = 1e9


def traced_scene(size=40, train=40, validation=4, test=8, supersampling=3):
    """Three spheres on a round checkered floor, shaded and in each other's shadow, on white.

    Every pixel is the mean of exact colors at `supersampling`² points within it. Cameras are
    on a dome of radius 3: training's spread over it by the golden angle, the others between.
    """
    focal = 1.2 * size
    count = train + validation + test
    heights = np.linspace(0.25, 0.85, count)
    angles = np.pi * (3.0 - np.sqrt(5.0)) * np.arange(count)
    across = np.sqrt(1.0 - heights**2)
    positions = 3.0 * np.stack([across * np.cos(angles), across * np.sin(angles), heights], axis=-1)
    poses = np.stack([looking_at(position, (0.0, 0.0, -0.2)) for position in positions])
    fine = camera_directions(size * supersampling, size * supersampling, focal * supersampling)
    images = []
    for pose in poses:
        directions = fine @ pose[:, :3].T
        colors = trace(np.broadcast_to(pose[:, 3], directions.shape), directions)
        blocks = colors.reshape(size, supersampling, size, supersampling, 3)
        images.append(blocks.mean(axis=(1, 3)))
    images = np.stack(images)
    # Held-out views lie all over the dome.
    order = np.random.default_rng(0).permutation(count)
    parts = np.split(order, [train, train + validation])
    views = [Views(images[part], poses[part]) for part in parts]
    return Scene(*views, focal=focal, near=1.5, far=4.5, background=1.0)


def trace(origins, directions):
    """The color that is seen along each ray: arrays of shape (…, 3)."""
    distances = np.stack(
        [_sphere_distance(origins, directions, *sphere[:2]) for sphere in SPHERES]
        + [_floor_distance(origins, directions)]
    )
    nearest, which = distances.min(axis=0), distances.argmin(axis=0)
    hit = nearest < FAR_AWAY
    points = origins + np.where(hit, nearest, 0.0)[..., None] * directions
    tiles = np.floor(points[..., :2] / TILE).sum(axis=-1) % 2
    colors = np.where(tiles[..., None] > 0, 0.85, 0.25) * np.ones(3)
    normals = np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)
    for index, (centre, radius, color) in enumerate(SPHERES):
        on_sphere = (which == index)[..., None]
        colors = np.where(on_sphere, color, colors)
        normals = np.where(on_sphere, (points - centre) / radius, normals)
    lit = np.clip(normals @ LIGHT, 0.0, 1.0) * ~in_shadow(points + 1e-6 * normals)
    return np.where(hit[..., None], colors * (0.35 + 0.65 * lit[..., None]), 1.0)


def in_shadow(points):
    """Whether a sphere stands between each point and the light."""
    towards = np.broadcast_to(LIGHT / np.linalg.norm(LIGHT), points.shape)
    return np.any(
        [_sphere_distance(points, towards, *sphere[:2]) < FAR_AWAY for sphere in SPHERES], axis=0
    )


def _sphere_distance(origins, directions, centre, radius):
    offsets = origins - centre
    half = (offsets * directions).sum(axis=-1)
    discriminant = half**2 - (offsets**2).sum(axis=-1) + radius**2
    distance = -half - np.sqrt(np.maximum(discriminant, 0.0))
    return np.where((discriminant > 0.0) & (distance > 0.0), distance, FAR_AWAY)


def _floor_distance(origins, directions):
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (FLOOR - origins[..., 2]) / directions[..., 2]
        points = origins + distance[..., None] * directions
        inside = (points[..., :2] ** 2).sum(axis=-1) < FLOOR_RADIUS**2
    return np.where((distance > 0.0) & inside, distance, FAR_AWAY)
