"""What is compared: families, normalizations, optimizers, and the ranges that all are tuned in.

Small settings of the example models, which a core trains in some seconds once compiled.
"""

import dataclasses
import hashlib
import json
from typing import Any

from benchmarks.comparison import examples

OPTIMIZERS = ("sgd", "adamw", "muon")
NEWTON, UNCENTERED = "newton_orthogonalization", "uncentered_newton_orthogonalization"
POLYNOMIAL, POLAR_EXPRESS = "polynomial_preconditioner", "one_step_polar_express"
CENTERING = "weight_standardization"
BASELINES = ("weight_normalization", CENTERING, "spectral_normalization")
ROWS = "row_equilibration"
MATRIX_METHODS = (NEWTON, POLYNOMIAL, POLAR_EXPRESS)
# The controls: plain networks, as they are, with their initial scale tuned as well, and with
# exactly the initial kernels that row equilibration uses at its best point; and the scale alone.
PLAIN, TUNED, MATCHED = "none", "scale tuned", "scale matched"
FROBENIUS = "frobenius_normalization"
# Plain networks that start from the kernels that a method makes. Of row equilibration that is the
# network of matched scale, of methods that only scale the kernel that of tuned scale.
STARTS_OF = (CENTERING, *MATRIX_METHODS)
ORTHOGONAL, REGULARIZED = "orthogonal_initializer", "orthogonal_regularizer"
AT_START = (ORTHOGONAL, *(f"{method}+at_start" for method in STARTS_OF))
STORED, CENTERED_STORED = "newton_step+stored", "centered_newton_step+stored"
UPDATES = "orthogonal_updates"
# Two methods in one: an orthogonal start or centered kernels, and orthogonal updates.
STARTED_UPDATES = f"{ORTHOGONAL}+{UPDATES}"
CENTERED_UPDATES = f"{CENTERING}+{UPDATES}"
# What conditions no kernel in the forward pass.
AROUND = (*AT_START, REGULARIZED, STORED, CENTERED_STORED, UPDATES, STARTED_UPDATES)
# What is tuned first, and has a say in the ranges; and what is tuned when the others have been.
EARLY = (FROBENIUS, *BASELINES, ROWS)
LATE = (
    NEWTON,
    POLAR_EXPRESS,
    ORTHOGONAL,
    f"{NEWTON}+at_start",
    f"{POLAR_EXPRESS}+at_start",
    REGULARIZED,
    STORED,
    UPDATES,
)
# The same with Muon.
EARLY_WITH_MUON = (ROWS,)
LATE_WITH_MUON = (NEWTON, POLAR_EXPRESS, ORTHOGONAL, STORED, UPDATES)
FEW_WITH_MUON = (ORTHOGONAL, UPDATES, STARTED_UPDATES)
MODES = ("fixed", "initial_norm", "kernel_norm", "scalar")
PENALTIES = ("0.01", "0.1", "1", "10")
# Matrix methods whose gradient passes through the multiplier.
DIFFERENTIATED = (f"{NEWTON}+differentiated", f"{POLYNOMIAL}+differentiated")
# Other uses of row equilibration.
NEXT = (f"{ROWS}+everywhere", f"{ROWS}+constraint", "constraint")
# What the package conditions during training, and variants of it, which the best is not chosen of.
OURS = (
    ROWS, *MATRIX_METHODS, STORED, CENTERED_STORED, UPDATES, STARTED_UPDATES, CENTERED_UPDATES,
)  # fmt: skip
VARIANTS = (UNCENTERED, *DIFFERENTIATED, *NEXT)
# Options that each run sets for itself, or that change no number.
FREE_OPTIONS = (
    "normalizations",
    "gain",
    "trainable_gain",
    "initial_scale",
    "penalty",
    "optimizer",
    "learning_rate",
    "seed",
    "steps_per_execution",
    "part_of_epoch",
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
        growths: Stretches that were added to the ranges of rates and scales, by optimizer, as
            the winners of the first comparison asked for: ("rate" or "scale", -1 or 1). Others
            follow from the records.
        late_bases: Normalizations of activations under which there is what came later, and
            Muon; or None for all.
        more: Names of what else is tuned late, with SGD and AdamW.
        with_muon: Methods that are tuned late with Muon, under each of `late_bases`.
        more_with_muon: Names of what else is tuned with Muon.
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
    growths: dict[str, tuple[tuple[str, int], ...]] = dataclasses.field(default_factory=dict)
    late_bases: tuple[str, ...] | None = None
    more: tuple[str, ...] = ()
    with_muon: tuple[str, ...] = LATE_WITH_MUON
    more_with_muon: tuple[str, ...] = ()
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

    def normalizations(self, optimizer):
        """The names of all that is compared."""
        return [*self.together(optimizer), *self.late_ones(optimizer)]

    def together(self, optimizer):
        """The names of what has a say in the ranges."""
        names = []
        for base in (PLAIN, *self.activations):
            if optimizer != "muon":
                controls = (f"{base}, {MATCHED}", f"{base}, {TUNED}")
                names += [base, *controls, *self.under(base, EARLY)]
            elif base in self.bases_of_late_ones:
                names += [base, f"{base}, {TUNED}", *self.under(base, EARLY_WITH_MUON)]
            else:
                names.append(base)
        return names

    def late_ones(self, optimizer):
        """The names of what is tuned in the ranges that the others settled on."""
        is_muon = optimizer == "muon"
        methods = self.with_muon if is_muon else LATE
        names = [name for base in self.bases_of_late_ones for name in self.under(base, methods)]
        return [*names, *(self.more_with_muon if is_muon else self.more)]

    @property
    def bases_of_late_ones(self):
        """The normalizations of activations under which all is compared."""
        return (PLAIN, *self.activations) if self.late_bases is None else self.late_bases

    def under(self, base, methods):
        """The names of methods under a normalization of activations."""
        return [method if base == PLAIN else f"{base}+{method}" for method in methods]

    def fingerprint(self, optimizer, backend):
        """What tells records of this setting from those of another, as eight hex digits."""
        options = {
            name: value
            for name, value in dataclasses.asdict(self.options()).items()
            if name not in FREE_OPTIONS
        }
        ranges = [self.rates[optimizer], self.scales]
        setting = [self.example, options, ranges, self.curvature_samples, optimizer, backend]
        text = json.dumps(setting, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


# Starts of training, of the deep networks, whose kernels have rows that really differ.
MUON = (3e-4, 0.03)
STARTS = ("badly_scaled", "fine_tuned", "pruned")
# Families that were tried after a first look at the others.
NEXT_FAMILIES = ("deep50", *STARTS)
RATE_UP, RATE_DOWN, SCALE_UP, SCALE_DOWN = (
    (name, side) for name in ("rate", "scale") for side in (1, -1)
)
_IMAGES = {"data": "fashion_mnist", "augment": False, "validation_fraction": 1 / 15}

_DEEP = Family(
    "deep",
    {**_IMAGES, "train_images": 10_000, "downscale": 2, "epochs": 8, "batch_size": 128},
    "val_accuracy",
    "accuracy",
    {"sgd": (2e-3, 0.1), "adamw": (1e-4, 6e-3), "muon": MUON},
    (),
)

FAMILIES = {
    "deep": dataclasses.replace(
        _DEEP,
        activations=("layer",),
        curvature_samples=256,
        growths={"sgd": (SCALE_UP,), "adamw": ()},
        more=(DIFFERENTIATED[0], *NEXT, STARTED_UPDATES, f"layer+{STARTED_UPDATES}"),
        more_with_muon=(STARTED_UPDATES, f"layer+{STARTED_UPDATES}"),
    ),
    "deep50": dataclasses.replace(
        _DEEP,
        changes={**_DEEP.changes, "depth": 50},
        rates={"sgd": (5e-4, 0.05), "adamw": (5e-5, 3e-3), "muon": MUON},
        growths={"sgd": (RATE_UP, RATE_DOWN), "adamw": (), "muon": ()},
        more=(STARTED_UPDATES,),
        with_muon=FEW_WITH_MUON,
    ),
    **{
        start: dataclasses.replace(
            _DEEP,
            changes={**_DEEP.changes, "start": start},
            growths={
                **dict.fromkeys(("sgd", "adamw"), (RATE_UP,) if start == "fine_tuned" else ()),
                "muon": (),
            },
            with_muon=FEW_WITH_MUON,
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
        # Keras' Muon trains convolutions by AdamW.
        {"sgd": (5e-3, 1.0), "adamw": (1e-3, 0.1)},
        ("batch",),
        growths={"sgd": (), "adamw": (SCALE_UP, SCALE_DOWN)},
        more=(
            f"{CENTERING}+at_start", DIFFERENTIATED[0], CENTERED_STORED, CENTERED_UPDATES,
            *(f"batch+{name}" for name in NEXT),
        ),
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
        {"sgd": (5e-3, 0.3), "adamw": (5e-4, 0.03), "muon": MUON},
        ("layer",),
        growths={"sgd": (RATE_DOWN,), "adamw": (RATE_UP, SCALE_UP)},
        # Transformers without layer normalization are rare, and get few configurations.
        late_bases=("layer",),
        # The kernels of attention have axes that a constraint cannot know.
        more=(
            f"layer+{NEXT[0]}", f"layer+{STARTED_UPDATES}", ORTHOGONAL, STORED, UPDATES,
            STARTED_UPDATES,
        ),
        more_with_muon=(f"layer+{STARTED_UPDATES}", *FEW_WITH_MUON),
    ),
    "nerf": Family(
        "nerf",
        {
            "traced_size": 24, "coarse_samples": 16, "fine_samples": 16, "batch_size": 128,
            "position_frequencies": 6, "epochs": 8, "steps_per_epoch": 50,
        },
        "val_psnr",
        "PSNR",
        {"sgd": (0.3, 8.0), "adamw": (3e-3, 0.08), "muon": MUON},
        (),
        more=(f"{CENTERING}+at_start", DIFFERENTIATED[0], CENTERED_UPDATES, *NEXT),
        growths={"sgd": (RATE_UP,), "adamw": ()},
    ),
    "shape": Family(
        "shape",
        {
            "width": 64, "points": 50_000, "test_points": 50_000, "resolution": 64,
            "batch_size": 1024, "epochs": 10, "steps_per_epoch": 80,
        },
        "val_iou",
        "IoU",
        {"sgd": (2e-3, 0.2), "adamw": (6e-4, 0.03), "muon": MUON},
        (),
        more=(
            POLYNOMIAL, f"{POLYNOMIAL}+at_start", f"{CENTERING}+at_start", UNCENTERED,
            *DIFFERENTIATED, CENTERED_STORED, CENTERED_UPDATES, *NEXT,
        ),
        more_with_muon=(*BASELINES, POLYNOMIAL),
        growths={"sgd": (), "adamw": (SCALE_UP,), "muon": ()},
        curvature_samples=2048,
    ),
}  # fmt: skip


def add_families(parser):
    """Adds --families to the options of a command."""
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))


def add_optimizers(parser):
    """Adds --optimizers to the options of a command."""
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
