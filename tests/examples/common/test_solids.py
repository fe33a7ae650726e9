"""Solids and their points, against solids whose insides are known by a formula."""

import pathlib

import numpy as np
import pytest

from tests.examples.loading import example

trimesh = pytest.importorskip("trimesh")
BUNNY = pathlib.Path("/usr/share/glmark2/models/bunny.obj")


@pytest.fixture(scope="module")
def solids():
    return example("common.solids")


def test_occupancy_of_a_ball(solids):
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.7)
    points, inside = solids.sample(ball, 4000, np.random.default_rng(0), near_surface=0.5)
    radius = np.linalg.norm(points, axis=-1)
    # The facets lie a little within the sphere.
    clear = np.abs(radius - 0.7) > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(inside[clear], radius[clear] < 0.7)
    near = np.abs(radius[:2000] - 0.7)
    assert np.median(near[:1000]) < 0.02 < np.median(near[1000:]) < 0.06
    assert (np.abs(points) <= 1.0).all()


def test_the_solid_made_here_is_a_gyroid_in_a_ball(solids):
    mesh = solids.load(None)
    assert mesh.is_watertight
    assert mesh.volume > 0.0
    np.testing.assert_allclose(np.abs(mesh.bounds).max(), 0.9)


@pytest.mark.skipif(not BUNNY.exists(), reason="needs the Stanford bunny of Debian's glmark2-data")
def test_bunny(solids):
    bunny = solids.load(BUNNY)
    assert bunny.is_watertight
    np.testing.assert_allclose(np.abs(bunny.bounds).max(), 0.9)
    _, inside = solids.sample(bunny, 20_000, np.random.default_rng(0), near_surface=0.0)
    # Points in it are as many as its volume says, of the cube's 8.
    assert inside.mean() == pytest.approx(bunny.volume / 8.0, abs=0.01)


def test_a_mesh_with_a_hole_is_refused(solids, tmp_path):
    box = trimesh.creation.box()
    box.update_faces(np.arange(len(box.faces)) != 3)
    box.export(tmp_path / "box.ply")
    with pytest.raises(ValueError, match=r"watertight mesh.*box.ply.*edges 3 do not belong to two"):
        solids.load(tmp_path / "box.ply")


def test_files_that_are_no_mesh(solids, tmp_path):
    with pytest.raises(ValueError, match=r"Expected a mesh file. Received: .*nothing.obj"):
        solids.load(tmp_path / "nothing.obj")
    (tmp_path / "notes.txt").write_text("no mesh")
    with pytest.raises(ValueError, match=r"a mesh file that trimesh reads.*notes.txt"):
        solids.load(tmp_path / "notes.txt")


def test_marching_cubes_find_a_ball_again(solids):
    axis = np.linspace(-1.0, 1.0, 48)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    ball = solids.surface(0.6 - np.linalg.norm(grid, axis=-1), 0.0, axis)
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.01)
    true = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
    larger = trimesh.creation.icosphere(subdivisions=5, radius=0.7)
    close, far = (solids.chamfer_distance(ball, other) for other in (true, larger))
    # Points drawn anew on one surface are some hundredths apart.
    assert close < 0.015
    assert far == pytest.approx(0.1, abs=0.01)


def test_picture_of_a_ball(solids):
    picture = solids.picture(trimesh.creation.icosphere(subdivisions=4, radius=0.8), size=100)
    seen = picture < 1.0
    assert seen.mean() == pytest.approx(np.pi * 0.8**2 / 2.5**2, abs=0.01)
    assert not seen[0].any()
    assert seen[50, 50]
    # Lit from above and from the left.
    assert picture[35, 50] > picture[70, 50]
