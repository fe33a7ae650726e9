"""Scenes in the layouts of Blender and LLFF, and messages about broken ones."""

import json

import numpy as np
import pytest

from tests.examples.loading import example


@pytest.fixture(scope="module")
def scenes():
    return example("common.scenes")


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
