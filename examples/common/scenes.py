"""Scenes for the radiance field: photographs with cameras, or a small scene that is traced."""

import json
import pathlib

import numpy as np

from common.cameras import Scene, Views, looking_at
from common.traced_scene import traced_scene

# The windows of SSIM.
SMALLEST = 7


def load(path, downscale=1, traced_size=40):
    """A scene from a folder in the layout of Blender or of LLFF, or traced where path is None."""
    if path is None:
        scene = traced_scene(traced_size)
    else:
        path = pathlib.Path(path).expanduser()
        if (path / "transforms_train.json").exists():
            scene = read_blender(path, downscale)
        elif (path / "poses_bounds.npy").exists():
            scene = read_llff(path, downscale)
        else:
            raise ValueError(
                "Expected a folder with `transforms_train.json` (Blender) or `poses_bounds.npy` "
                "(LLFF), which say where images were taken from. "
                f"Received: scene={str(path)!r}"
            )
    height, width = scene.train.images.shape[1:3]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"Expected views of at least {SMALLEST}×{SMALLEST} pixels, which SSIM compares. "
            f"Received: views of {height}×{width} pixels"
        )
    return scene


def read_blender(path, downscale=1):
    """The layout of Mildenhall et al. 2020's synthetic scenes: `transforms_*.json`, white behind.

    All views are taken by one camera. Views that it has no `transforms_val.json` or
    `transforms_test.json` for are taken from training's, every eighth.
    """
    parts, cameras = {}, {}
    for part in ("train", "val", "test"):
        file = path / f"transforms_{part}.json"
        if not file.exists():
            continue
        angle, names, poses = _read_transforms(file)
        images = _read_images([_image_file(path, name) for name in names], downscale)
        parts[part] = Views(images, poses)
        cameras[part] = *images.shape[1:3], angle
    if len(set(cameras.values())) > 1:
        raise ValueError(
            "Expected views of one size and one `camera_angle_x`. Received: (height, width, angle) "
            f"= {cameras} in {str(path)!r}"
        )
    _, width, angle = cameras["train"]
    focal = 0.5 * width / np.tan(0.5 * angle)
    train = parts["train"]
    if "test" not in parts:
        train, parts["test"] = every_eighth(train)
    if "val" not in parts:
        train, parts["val"] = every_eighth(train)
    # The synthetic scenes lie within 2 of a centre from which cameras are 4 away.
    distance = float(np.median(np.linalg.norm(train.poses[:, :, 3], axis=-1)))
    return Scene(
        train, parts["val"], parts["test"], float(focal), 0.5 * distance, 1.5 * distance, 1.0
    )


def read_llff(path, downscale=1):
    """The layout of Mildenhall et al. 2019: `poses_bounds.npy` beside a folder `images`.

    A row holds a 3×5 matrix, whose columns are down, right and backward axes, position, and
    (height, width, focal length), and the nearest and farthest depth. Scaled so that the
    nearest depth is 1; every eighth view is for the test, as is usual, and every eighth of the
    others for validation.
    """
    rows = np.load(path / "poses_bounds.npy")
    files = sorted(
        file
        for file in (path / "images").glob("*")
        if file.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    if rows.ndim != 2 or rows.shape[1] != 17 or len(files) != len(rows):
        raise ValueError(
            "Expected `poses_bounds.npy` of shape (views, 17), and as many images in the folder "
            f"`images`. Received: an array of shape {rows.shape} and {len(files)} images in "
            f"{str(path)!r}"
        )
    wrong = ~np.isfinite(rows).all(axis=1) | ~(rows[:, 15] > 0.0)
    if wrong.any():
        raise ValueError(
            "Expected finite numbers and nearest depths above 0 in `poses_bounds.npy`. Received: "
            f"others in the rows {np.flatnonzero(wrong).tolist()}, in {str(path)!r}"
        )
    images = _read_images(files, downscale)
    matrices = rows[:, :15].reshape(-1, 3, 5)
    down, right, backward, position = (matrices[:, :, column] for column in range(4))
    scale = 1.0 / rows[:, 15].min()
    poses = np.stack([right, -down, backward, position * scale], axis=-1)
    # Recorded for images of a recorded size, whatever the size they are read at.
    focal = float(matrices[0, 2, 4] * images.shape[2] / matrices[0, 1, 4])
    train, test = every_eighth(Views(images, centred(poses)))
    train, validation = every_eighth(train)
    # Depths are along the axis; the rays of the corners are longer by so much.
    height, width = images.shape[1:3]
    slant = float(np.hypot(1.0, np.hypot(height, width) / (2.0 * focal)))
    far = float(rows[:, 16].max() * scale) * slant
    return Scene(train, validation, test, focal, 0.9, far, None)


def centred(poses):
    """Poses relative to their average."""
    position = poses[:, :, 3].mean(axis=0)
    average = looking_at(
        position, position - poses[:, :, 2].mean(axis=0), up=poses[:, :, 1].mean(axis=0)
    )
    rotation = average[:, :3].T
    rotated = rotation @ poses
    rotated[:, :, 3] -= rotation @ position
    return rotated


def every_eighth(views):
    """Views without every eighth, and these."""
    if len(views.images) < 2:
        raise ValueError(
            "Expected views enough to hold some out. Received: a scene of "
            f"{len(views.images)} images to learn from"
        )
    held_out = np.arange(len(views.images)) % 8 == 0
    return (
        Views(views.images[~held_out], views.poses[~held_out]),
        Views(views.images[held_out], views.poses[held_out]),
    )


def _read_transforms(file):
    """The angle of view, the names of images, and poses (n, 3, 4) of one `transforms_*.json`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        angle, frames = float(content["camera_angle_x"]), content["frames"]
        names = [frame["file_path"] for frame in frames]
        poses = np.array([frame["transform_matrix"] for frame in frames], "float64")[:, :3, :4]
        if poses.shape[1:] != (3, 4):
            raise ValueError(f"poses of shape {poses.shape[1:]}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            "Expected a JSON object with `camera_angle_x`, in radians, and `frames`, each with "
            f"`file_path` and a 4×4 `transform_matrix`. Received: {file}. The reason was: "
            f"{type(error).__name__}: {error}"
        ) from error
    return angle, names, poses


def _image_file(path, name):
    file = path / name
    return file if file.suffix else file.with_suffix(".png")


def _read_images(files, downscale):
    """Images of one size: (n, height, width, 3)."""
    images = [_read_image(file, downscale) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"Expected images of one size. Received: {files[0]}, whose array is of shape "
                f"{images[0].shape}, and {file}, of {image.shape}"
            )
    return np.stack(images)


def _read_image(file, downscale):
    """Colors in [0, 1] over white where the image is transparent."""
    from PIL import Image

    try:
        picture = Image.open(file)
    except FileNotFoundError as error:
        raise ValueError(f"An image that the scene names is missing: {file}") from error
    except OSError as error:
        raise ValueError(f"Expected an image that Pillow reads. Received: {file}") from error
    with picture:
        try:
            picture.load()
        except OSError as error:
            raise ValueError(f"Expected a whole image. Received: {file}: {error}") from error
        if picture.mode.startswith("I"):
            raise ValueError(
                f"Expected images of 8 bits a channel. Received: {file}, of 16. Convert it first."
            )
        picture = picture.convert("RGBA")
        if downscale > 1:
            picture = picture.reduce(downscale)
        pixels = np.asarray(picture, "float32") / 255.0
    alpha = pixels[..., 3:]
    return pixels[..., :3] * alpha + (1.0 - alpha)
