"""What is compared: families, normalizations, optimizers, and the ranges that all are tuned in.

Small settings of the example models, which a core trains in some seconds once compiled.
"""

import dataclasses
import hashlib
import json
from typing import Any

from benchmarks.comparison import examples

OPTIMIZERS = ("sgd", "adamw")
NEWTON, UNCENTERED = "newton_orthogonalization", "uncentered_newton_orthogonalization"
METHODS = (
    "weight_normalization",
    "weight_standardization",
    "spectral_normalization",
    "row_equilibration",
    NEWTON,
    "polynomial_preconditioner",
)
# The controls: plain networks, as they are, with their initial scale tuned as well, and with
# exactly the initial kernels that row equilibration uses at its best point; and the scale alone.
PLAIN, TUNED, MATCHED = "none", "scale tuned", "scale matched"
FROBENIUS = "frobenius_normalization"
MODES = ("fixed", "initial_norm", "kernel_norm", "scalar")
# What was tried after a first look at those, tuned in the ranges that they settled on.
NEXT = (
    f"row_equilibration+{NEWTON}",
    UNCENTERED,
    "row_equilibration+everywhere",
    "row_equilibration+constraint",
    "constraint",
)
# Options that each run sets for itself, or that change no number.
FREE_OPTIONS = (
    "normalizations",
    "gain",
    "trainable_gain",
    "initial_scale",
    "optimizer",
    "learning_rate",
    "seed",
    "workers",
    "output",
)


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of models in the comparison.

    Args:
        example: Name of its module in examples/.
        changes: What its small setting changes of the example's first recipe.
        score: Name of the score in the history of training, on validation data.
        test_score: Its name on the test data.
        rates: Lowest and highest learning rate, by optimizer: around what a scan of the plain
            network and the row-equilibrated one found, to where they diverge.
        activations: Normalizations of activations it is compared under.
        methods: Names of the normalizations of weights.
        next: Names of what else was tried.
        scales: Lowest and highest initial scale or gain.
        curvature_samples: How many validation samples the curvature of the loss is measured
            on after training, or 0 where that takes too long.
    """

    example: str
    changes: dict[str, Any]
    score: str
    test_score: str
    rates: dict[str, tuple[float, float]]
    activations: tuple[str, ...]
    methods: tuple[str, ...] = METHODS
    next: tuple[str, ...] = NEXT
    scales: tuple[float, float] = (0.3, 3.0)
    curvature_samples: int = 0

    @property
    def module(self):
        """The example's module."""
        return examples.module(self.example)

    def options(self, **changes):
        """The options of its small setting."""
        (_, options), *_ = self.module.RECIPES.values()
        return dataclasses.replace(options, **{**self.changes, **changes})

    def normalizations(self):
        """The names of all that is compared."""
        names = []
        for activation in (PLAIN, *self.activations):
            prefix = "" if activation == PLAIN else f"{activation}+"
            controls = f"{activation}, {MATCHED}", f"{activation}, {TUNED}", prefix + FROBENIUS
            names += [activation, *controls, *(prefix + method for method in self.methods)]
        return [*names, *self.next]

    def fingerprint(self, backend):
        """What tells records of this setting from those of another, as eight hex digits."""
        options = {
            name: value
            for name, value in dataclasses.asdict(self.options()).items()
            if name not in FREE_OPTIONS
        }
        setting = [self.example, options, self.rates, self.scales, self.curvature_samples, backend]
        text = json.dumps(setting, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# Starts of training, of the deep networks, whose kernels have rows that really differ.
STARTS = ("badly_scaled", "fine_tuned", "pruned")
# Rivals that met them last, in the ranges that the others had settled on.
LAST_RIVALS = ("weight_standardization", "spectral_normalization")
# Families that, as NEXT, were tried after a first look at the others.
NEXT_FAMILIES = ("deep50", *STARTS)
_IMAGES = {"data": "fashion_mnist", "augment": False, "validation_fraction": 1 / 15}

_DEEP = Family(
    "deep",
    {**_IMAGES, "train_images": 10_000, "downscale": 2, "epochs": 8, "batch_size": 128},
    "val_accuracy",
    "accuracy",
    {"sgd": (2e-3, 0.1), "adamw": (1e-4, 6e-3)},
    (),
)

FAMILIES = {
    "deep": dataclasses.replace(_DEEP, activations=("layer",), curvature_samples=256),
    "deep50": dataclasses.replace(
        _DEEP,
        changes={**_DEEP.changes, "depth": 50},
        rates={"sgd": (5e-4, 0.05), "adamw": (5e-5, 3e-3)},
        next=NEXT[:2],
    ),
    **{
        start: dataclasses.replace(
            _DEEP,
            changes={**_DEEP.changes, "start": start},
            methods=tuple(name for name in METHODS if name not in LAST_RIVALS),
            next=(*NEXT[:1], *LAST_RIVALS),
        )
        for start in STARTS
    },
    "cnn": Family(
        "cnn",
        {
            **_IMAGES, "train_images": 5000, "validation_fraction": 1 / 30, "downscale": 2,
            "epochs": 5, "batch_size": 64, "width": 8, "weight_decay": 5e-4,
        },
        "val_accuracy",
        "accuracy",
        {"sgd": (5e-3, 1.0), "adamw": (1e-3, 0.1)},
        ("batch",),
        next=(UNCENTERED, *(f"batch+{name}" for name in NEXT)),
    ),
    "vit": Family(
        "vit",
        {
            **_IMAGES, "train_images": 5000, "validation_fraction": 1 / 30,
            "size": "mini", "patch_size": 7, "epochs": 5, "batch_size": 64, "weight_decay": 0.01,
            "warmup_epochs": 1,
        },
        "val_accuracy",
        "accuracy",
        {"sgd": (5e-3, 0.3), "adamw": (5e-4, 0.03)},
        ("layer",),
        # The kernels of attention have axes that a constraint cannot know.
        next=(UNCENTERED, *(f"layer+{name}" for name in NEXT[:3])),
    ),
    "nerf": Family(
        "nerf",
        {
            "traced_size": 24, "coarse_samples": 16, "fine_samples": 16, "batch_size": 128,
            "position_frequencies": 6, "epochs": 8, "steps_per_epoch": 50,
        },
        "val_psnr",
        "PSNR",
        {"sgd": (0.3, 8.0), "adamw": (3e-3, 0.08)},
        (),
    ),
    "shape": Family(
        "shape",
        {
            "width": 64, "points": 50_000, "test_points": 50_000, "resolution": 64,
            "batch_size": 1024, "epochs": 10, "steps_per_epoch": 80,
        },
        "val_iou",
        "IoU",
        {"sgd": (2e-3, 0.2), "adamw": (6e-4, 0.03)},
        (),
        curvature_samples=2048,
    ),
}  # fmt: skip


def add_families(parser):
    """Adds --families to the options of a command."""
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))


def add_optimizers(parser):
    """Adds --optimizers to the options of a command."""
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
