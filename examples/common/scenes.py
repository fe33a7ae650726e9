"""Scenes for the radiance field: photographs with cameras, or a small scene traced exactly.

Cameras look along −z, with x to the right and y up, and a pose is the 3×4 matrix that takes
their coordinates to the world's.
"""

import dataclasses
import json
import pathlib

import numpy as np

# The windows of SSIM.
SMALLEST = 7


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
