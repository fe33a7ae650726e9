"""Solids for the shape example: any mesh file that trimesh reads, or one made here.

All are scaled to fit the cube [−0.9, 0.9]³, so that space is left around them.
"""

import pathlib

import numpy as np
import trimesh

HALF = 0.9


def load(path: pathlib.Path | None) -> trimesh.Trimesh:
    """A solid from a file, or the one made here where path is None."""
    if path is None:
        return fitted(gyroid_ball())
    path = pathlib.Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"Expected a mesh file. Received: mesh={str(path)!r}, which is not there.")
    try:
        mesh = trimesh.load(path, force="mesh")
    except Exception as error:  # whatever the reader of a format raises
        raise ValueError(
            "Expected a mesh file that trimesh reads, such as .obj, .ply, .stl or .off. "
            f"Received: mesh={str(path)!r}. The reason was: {error}"
        ) from error
    if not len(getattr(mesh, "faces", ())):
        raise ValueError(
            f"Expected a mesh with faces. Received: mesh={str(path)!r}, which has none."
        )
    # Files repeat vertices where textures or normals change.
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    if not mesh.is_watertight:
        faces_of_edge = np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1]
        raise ValueError(
            "Expected a watertight mesh, which has an inside and an outside. Received: "
            f"mesh={str(path)!r}, of whose edges {(faces_of_edge != 2).sum()} do not belong to "
            "two faces. Close its holes first, in a tool such as MeshLab or Blender."
        )
    return fitted(mesh)


def fitted(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """A mesh moved and scaled, in place, to fit the cube [−0.9, 0.9]³."""
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    mesh.apply_scale(HALF / np.abs(mesh.bounds).max())
    return mesh


def gyroid_ball(resolution: int = 96) -> trimesh.Trimesh:
    """A ball of which a gyroid is left: |sin x cos y + sin y cos z + sin z cos x| < 0.5."""
    axis = np.linspace(-1.05, 1.05, resolution)
    x, y, z = 2.4 * np.pi * np.stack(np.meshgrid(axis, axis, axis, indexing="ij")) / 2.0
    gyroid = np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)
    radius = np.sqrt(sum(np.square(np.meshgrid(axis, axis, axis, indexing="ij"))))
    inside = np.minimum(0.5 - np.abs(gyroid), 6.0 * (0.95 - radius))
    return surface(inside, 0.0, axis)


def surface(values: np.ndarray, level: float, axis: np.ndarray) -> trimesh.Trimesh:
    """The surface at a level of values on a grid, by marching cubes; large values are inside.

    Args:
        values: Of shape (n, n, n).
        level: The value at the surface.
        axis: The coordinates of the grid along each axis, of shape (n,).
    """
    from skimage import measure

    spacing = (axis[1] - axis[0],) * 3
    vertices, faces, _, _ = measure.marching_cubes(
        values, level, spacing=spacing, gradient_direction="ascent"
    )
    mesh = trimesh.Trimesh(vertices + axis[0], faces)
    if mesh.is_watertight and mesh.volume < 0:
        mesh.invert()
    return mesh


def occupied(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Whether points (n, 3) are inside, by how often rays from them cross the mesh: (n,)."""
    return mesh.contains(points)


def sample(mesh, count, rng, near_surface=0.5, deviations=(0.01, 0.05)):
    """Points (count, 3), float32, and whether they are inside (count,).

    Args:
        mesh: The solid.
        count: Integer.
        rng: `numpy.random.Generator`.
        near_surface: The part of the points that are taken from the surface and moved, half
            of them by the first deviation and half by the second; the others are uniform in
            the cube [−1, 1]³.
        deviations: Standard deviations of a Gaussian.
    """
    close = round(near_surface * count)
    points = rng.uniform(-1.0, 1.0, (count, 3))
    if close:
        on_surface, _ = trimesh.sample.sample_surface(mesh, close, seed=rng)
        spread = np.where(np.arange(close) < close // 2, *deviations)[:, None]
        points[:close] = np.clip(on_surface + spread * rng.normal(size=(close, 3)), -1.0, 1.0)
    points = points.astype("float32")
    return points, occupied(mesh, points)


def chamfer_distance(mesh, other, count=30_000, seed=0):
    """The mean distance from points of each surface to the other, of both directions.

    Points are uniform on the surfaces; distances are to the nearest of the other's points.
    """
    from scipy import spatial

    points = [
        trimesh.sample.sample_surface(each, count, seed=seed + index)[0]
        for index, each in enumerate((mesh, other))
    ]
    trees = [spatial.cKDTree(each) for each in points]
    return 0.5 * (trees[1].query(points[0])[0].mean() + trees[0].query(points[1])[0].mean())


def picture(mesh: trimesh.Trimesh, size: int = 320, azimuth=30.0, elevation=20.0) -> np.ndarray:
    """Shades of gray of a mesh, (size, size), as seen from afar by parallel rays; white around."""
    azimuth, elevation = np.radians([azimuth, elevation])
    backward = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    right = np.cross([0.0, 1.0, 0.0], backward)
    right /= np.linalg.norm(right)
    up = np.cross(backward, right)
    axis = np.linspace(-1.25, 1.25, size)
    origins = (axis[None, :, None] * right - axis[:, None, None] * up + 3.0 * backward).reshape(
        -1, 3
    )
    faces = mesh.ray.intersects_first(origins, np.broadcast_to(-backward, origins.shape))
    light = backward + 0.6 * up - 0.5 * right
    shades = np.clip(mesh.face_normals[faces] @ (light / np.linalg.norm(light)), 0.0, 1.0)
    return np.where(faces >= 0, 0.15 + 0.75 * shades, 1.0).reshape(size, size)
