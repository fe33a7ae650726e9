"""Scenes, in the layouts of others and traced here, and the rendering of rays."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tests.examples.loading import example


@pytest.fixture(scope="module")
def scenes():
    return example("common.scenes")


@pytest.fixture(scope="module")
def traced():
    return example("common.traced_scene").traced_scene(size=16, train=16, validation=2, test=2)


def save_images(views, folder):
    from PIL import Image

    folder.mkdir(parents=True)
    for index, pixels in enumerate(views.images):
        picture = Image.fromarray((pixels * 255.0).round().astype("uint8"))
        picture.save(folder / f"r_{index:02}.png")


def test_blender_layout_gives_back_the_scene(scenes, traced, tmp_path):
    for name, views in (("train", traced.train), ("val", traced.validation), ("test", traced.test)):
        save_images(views, tmp_path / name)
        frames = [
            {
                "file_path": f"./{name}/r_{index:02}",
                "transform_matrix": [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]],
            }
            for index, pose in enumerate(views.poses)
        ]
        angle = 2.0 * np.arctan(0.5 * 16 / traced.focal)
        content = json.dumps({"camera_angle_x": angle, "frames": frames})
        (tmp_path / f"transforms_{name}.json").write_text(content)
    read = scenes.load(tmp_path)
    assert read.focal == pytest.approx(traced.focal)
    assert (read.near, read.far, read.background) == pytest.approx((1.5, 4.5, 1.0))
    for part in ("train", "validation", "test"):
        rays, colors = traced.rays(getattr(traced, part))
        read_rays, read_colors = read.rays(getattr(read, part))
        np.testing.assert_allclose(read_rays, rays, atol=1e-6)
        np.testing.assert_allclose(read_colors, colors, atol=0.5 / 255 + 1e-6)


def test_blender_layout_without_other_parts_holds_some_out(scenes, traced, tmp_path):
    save_images(traced.train, tmp_path / "train")
    frames = [
        {"file_path": f"train/r_{index:02}.png", "transform_matrix": pose.tolist()}
        for index, pose in enumerate(traced.train.poses)
    ]
    content = json.dumps({"camera_angle_x": 0.8, "frames": frames})
    (tmp_path / "transforms_train.json").write_text(content)
    read = scenes.load(tmp_path, downscale=2)
    sizes = [len(part.images) for part in (read.train, read.validation, read.test)]
    assert sizes == [12, 2, 2]
    assert read.train.images.shape[1:] == (8, 8, 3)
    (tmp_path / "train" / "r_03.png").unlink()
    with pytest.raises(ValueError, match=r"An image that the scene names is missing: .*r_03.png"):
        scenes.load(tmp_path)


def write_blender(views, folder, part="train", angle=0.8, **changes):
    save_images(views, folder / part)
    frames = [
        {"file_path": f"{part}/r_{index:02}.png", "transform_matrix": pose.tolist()}
        for index, pose in enumerate(views.poses)
    ]
    content = {"camera_angle_x": angle, "frames": frames, **changes}
    kept = {name: value for name, value in content.items() if value is not None}
    (folder / f"transforms_{part}.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"camera_angle_x": None}, "KeyError: 'camera_angle_x'"),
        ({"frames": None}, "KeyError: 'frames'"),
        ({"frames": []}, "IndexError"),
        ({"frames": [{"file_path": "r_00.png"}]}, "KeyError: 'transform_matrix'"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1.0, 0.0]] * 4}]}, "of shape"),
    ],
)
def test_blender_file_that_lacks_something(scenes, traced, tmp_path, changes, reason):
    write_blender(traced.train, tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"a JSON object with .*transforms_train.json.*{reason}"):
        scenes.load(tmp_path)


def test_file_that_is_no_json(scenes, tmp_path):
    (tmp_path / "transforms_train.json").write_text('{"frames": [')
    with pytest.raises(ValueError, match=r"a JSON object with .*transforms_train.json"):
        scenes.load(tmp_path)


def test_blender_parts_are_of_one_camera(scenes, traced, tmp_path):
    write_blender(traced.train, tmp_path)
    write_blender(traced.test, tmp_path, "test", angle=0.7)
    with pytest.raises(ValueError, match=r"one `camera_angle_x`.*'train': \(16, 16, 0.8\)"):
        scenes.load(tmp_path)


@pytest.mark.parametrize("content", [b"no image", None], ids=["other", "cut off"])
def test_image_that_cannot_be_read(scenes, traced, tmp_path, content):
    write_blender(traced.train, tmp_path)
    file = tmp_path / "train" / "r_05.png"
    file.write_bytes(content or file.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"Expected an? (whole )?image.*r_05.png"):
        scenes.load(tmp_path)


def test_images_of_several_sizes(scenes, traced, tmp_path):
    from PIL import Image

    write_blender(traced.train, tmp_path)
    Image.new("RGB", (20, 16)).save(tmp_path / "train" / "r_05.png")
    with pytest.raises(ValueError, match=r"images of one size.*r_05.png, of \(16, 20, 3\)"):
        scenes.load(tmp_path)


def test_views_too_small_to_compare(scenes):
    with pytest.raises(ValueError, match=r"at least 7×7 pixels.*of 6×6 pixels"):
        scenes.load(None, traced_size=6)


def test_llff_depths_are_above_zero(scenes, traced, tmp_path):
    write_llff(traced.train, traced.focal, tmp_path)
    rows = np.load(tmp_path / "poses_bounds.npy")
    rows[3, 15], rows[5, 2] = 0.0, np.nan
    np.save(tmp_path / "poses_bounds.npy", rows)
    with pytest.raises(ValueError, match=r"nearest depths above 0.*rows \[3, 5\]"):
        scenes.load(tmp_path)


def test_views_are_rendered_as_their_rays_are(scenes, traced):
    nerf = example("nerf")
    options = nerf.Options(depth=2, width=8, coarse_samples=4, fine_samples=4)
    model = nerf.build("none", traced, options)
    colors, depths = nerf.render(model, traced, traced.test, batch_size=100)
    assert (colors.shape, depths.shape) == ((2, 16, 16, 3), (2, 16, 16))
    rays, _ = traced.rays(traced.test)
    expected = model.predict(rays, batch_size=len(rays), verbose=0)
    np.testing.assert_allclose(colors.reshape(-1, 3), expected["fine"], atol=1e-4)
    np.testing.assert_allclose(depths.reshape(-1), expected["depth"], atol=1e-3)


def write_llff(views, focal, folder):
    """The layout's own axes: down, right, backward; images and rows in the order of names."""
    save_images(views, folder / "images")
    right, up, backward, position = np.moveaxis(views.poses, 2, 0)
    height, width = views.images.shape[1:3]
    sizes = np.broadcast_to([height, width, focal], position.shape)
    matrices = np.stack([-up, right, backward, position, sizes], axis=-1)
    bounds = np.broadcast_to([2.0, 5.0], (len(position), 2))
    np.save(
        folder / "poses_bounds.npy",
        np.concatenate([matrices.reshape(-1, 15), bounds], axis=1),
    )


def test_llff_layout_gives_back_the_scene_up_to_place_and_scale(scenes, traced, tmp_path):
    write_llff(traced.train, traced.focal, tmp_path)
    read = scenes.load(tmp_path)
    assert read.background is None
    assert read.focal == pytest.approx(traced.focal)
    assert (read.near, read.far) == pytest.approx(
        (0.9, 2.5 * np.hypot(1.0, np.hypot(8, 8) / traced.focal))
    )
    # Every eighth is held out, twice; what moves and turns all rays keeps their products.
    kept = np.delete(np.arange(16), [0, 8])
    kept = np.delete(kept, [0, 8])
    rays, colors = read.rays(read.train)
    views = example("common.cameras").Views(traced.train.images[kept], traced.train.poses[kept])
    true_rays, true_colors = traced.rays(views)
    np.testing.assert_allclose(colors, true_colors, atol=0.5 / 255 + 1e-6)
    some = np.arange(0, len(rays), 97)
    directions, true_directions = rays[some, 3:], true_rays[some, 3:]
    np.testing.assert_allclose(
        directions @ directions.T, true_directions @ true_directions.T, atol=1e-5
    )
    moved = rays[some, None, :3] - rays[None, some, :3]
    true_moved = (true_rays[some, None, :3] - true_rays[None, some, :3]) / 2.0
    along = np.einsum("ijk,ik->ij", moved, directions)
    np.testing.assert_allclose(
        along, np.einsum("ijk,ik->ij", true_moved, true_directions), atol=1e-5
    )


def test_llff_folder_with_an_image_too_few(scenes, traced, tmp_path):
    write_llff(traced.train, traced.focal, tmp_path)
    (tmp_path / "images" / "r_03.png").unlink()
    with pytest.raises(ValueError, match=r"as many images.*\(16, 17\) and 15 images"):
        scenes.load(tmp_path)


def test_folder_without_poses(scenes, tmp_path):
    with pytest.raises(ValueError, match=r"transforms_train.json.*poses_bounds.npy.*Received"):
        scenes.load(tmp_path)


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


@pytest.fixture(scope="module")
def rays(traced):
    return traced.rays(traced.test)[0][:20]


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


def test_positional_encoding():
    encode = example("common.coordinates").positional_encoding
    x = np.array([[0.25, -0.5, 0.1]], "float32")
    encoded = keras.ops.convert_to_numpy(encode(keras.ops.convert_to_tensor(x), 2))
    expected = [x[0]]
    for octave in (1.0, 2.0):
        expected += [np.sin(np.pi * octave * x[0]), np.cos(np.pi * octave * x[0])]
    assert encoded.shape == (1, 15)
    np.testing.assert_allclose(encoded[0], np.concatenate(expected), atol=1e-6)
