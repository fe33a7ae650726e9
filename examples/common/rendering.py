"""Colors and depths of rays, rendered from a coarse and a fine radiance field."""

import keras
from keras import ops

from common import coordinates


class RadianceField(keras.Model):
    """Renders rays by a coarse and a fine field.

    Args:
        coarse: A model that `nerf.field` returns.
        fine: Likewise.
        scene: The `cameras.Scene`, of which near, far and background are read.
        options: The options.
    """

    def __init__(self, coarse, fine, scene, options):
        # Rays are not for low precision: a pixel is a thousandth of a direction.
        super().__init__(autocast=False)
        self.coarse, self.fine = coarse, fine
        self.near, self.far, self.background = scene.near, scene.far, scene.background
        self.options = options
        self.seed_generator = keras.random.SeedGenerator(options.seed)

    @property
    def optimizer_conditioning(self):
        """The arguments of `keras_wcond.condition_optimizer`, or None."""
        return self.coarse.optimizer_conditioning

    def call(self, rays, training=False):
        """Of rays (n, 6), origins and directions: {"coarse", "fine"} (n, 3), and "depth" (n,)."""
        coarse, fine = self.render(rays, training)
        return {"coarse": coarse["color"], "fine": fine["color"], "depth": fine["depth"]}

    def render(self, rays, training=False):
        """Color (n, 3), depth (n,) and opacity (n,) by the coarse and by the fine field."""
        edges = ops.linspace(0.0, 1.0, self.options.coarse_samples + 1)
        shape = (ops.shape(rays)[0], self.options.coarse_samples)
        offsets = self._uniform(shape, training)
        positions = edges[:-1] + offsets * (edges[1] - edges[0])
        coarse = self._composite(self.coarse, rays, positions)
        shape = (shape[0], self.options.fine_samples)
        where = ops.stop_gradient(coarse["weights"])
        more = sample_where(edges, where, self._levels(shape, training))
        positions = ops.sort(ops.concatenate([positions, more], axis=-1), axis=-1)
        return coarse, self._composite(self.fine, rays, positions)

    def _uniform(self, shape, training):
        if not training:
            return ops.full(shape, 0.5)
        return keras.random.uniform(shape, seed=self.seed_generator)

    def _levels(self, shape, training):
        """One number in each of equal parts of [0, 1)."""
        steps = ops.arange(shape[1], dtype="float32")
        return (steps + self._uniform(shape, training)) / shape[1]

    def _distances(self, positions):
        """From [0, 1] to distances; in steps of their inverse where a scene has no end."""
        if self.background is None:
            return 1.0 / ((1.0 - positions) / self.near + positions / self.far)
        return self.near + (self.far - self.near) * positions

    def _composite(self, network, rays, positions):
        """The rendering equation of Mildenhall et al. 2020, equation 3."""
        distances = self._distances(positions)
        origins, directions = rays[:, None, :3], rays[:, None, 3:]
        points = origins + distances[..., None] * directions
        if self.background is not None:
            points = points / (0.5 * (self.far - self.near))
        directions = ops.broadcast_to(directions, ops.shape(points))
        encoded = [
            coordinates.positional_encoding(ops.reshape(x, (-1, 3)), frequencies)
            for x, frequencies in (
                (points, self.options.position_frequencies),
                (directions, self.options.direction_frequencies),
            )
        ]
        raw = network(encoded)
        raw = ops.cast(ops.reshape(raw, (*ops.shape(points)[:-1], 4)), "float32")
        ends = ops.full_like(distances[:, :1], self.far)
        lengths = ops.maximum(ops.diff(ops.concatenate([distances, ends], axis=-1)), 0.0)
        optical = ops.softplus(raw[..., 0] - 1.0) * lengths
        passed = ops.cumsum(optical[:, :-1], axis=-1)
        before = ops.exp(-ops.concatenate([ops.zeros_like(optical[:, :1]), passed], axis=-1))
        weights = before * (1.0 - ops.exp(-optical))
        opacity = ops.sum(weights, axis=-1)
        color = ops.sum(weights[..., None] * ops.sigmoid(raw[..., 1:]), axis=-2)
        if self.background is not None:
            color = color + (1.0 - opacity)[:, None] * self.background
        depth = ops.sum(weights * distances, axis=-1) + (1.0 - opacity) * self.far
        return {"color": color, "depth": depth, "opacity": opacity, "weights": weights}


def sample_where(edges, weights, levels):
    """Positions distributed as weights say, by inverting the cumulative distribution.

    Args:
        edges: Borders of the cells, of shape (cells + 1,).
        weights: Of the cells, (n, cells).
        levels: In [0, 1), (n, samples).

    Returns:
        Positions, (n, samples).
    """
    weights = weights + 1e-4
    density = weights / ops.sum(weights, axis=-1, keepdims=True)
    after = ops.cumsum(density, axis=-1)
    # The cell in which each level falls, as rows of zeros and a one.
    below = ops.cast(levels[..., None] >= after[:, None, :-1], "float32")
    cell = ops.one_hot(ops.cast(ops.sum(below, axis=-1), "int32"), weights.shape[-1])
    start = ops.sum(cell * (after - density)[:, None, :], axis=-1)
    height = ops.sum(cell * density[:, None, :], axis=-1)
    fraction = ops.clip((levels - start) / height, 0.0, 1.0)
    left = ops.sum(cell * edges[:-1], axis=-1)
    return left + fraction * (edges[1] - edges[0])
