"""Configurations of a conditioned layer, and the strategy that draws them."""

import dataclasses
from typing import Any

import keras
from hypothesis import strategies as st

from tests.fuzzing.kinds import KINDS, Variant

BACKEND = keras.backend.backend()

# Each method with arguments that the reference in NumPy knows.
METHODS: dict[str, tuple[dict[str, Any], ...]] = {
    "row_equilibration": ({}, {"differentiate_multiplier": False}),
    "column_equilibration": ({}, {"differentiate_multiplier": False}),
    "ruiz_equilibration": ({}, {"iterations": 5}),
    "weight_standardization": ({},),
    "spectral_normalization": ({}, {"iterations": 2}),
    "newton_orthogonalization": ({}, {"center": False}, {"iterations": 3}),
    "polynomial_preconditioner": ({}, {"degree": 1}, {"degree": 2}, {"degree": 3}),
    "frobenius_normalization": ({},),
    "polar_express": ({}, {"center": True}, {"differentiate_multiplier": True}),
    "newton_step": ({}, {"strength": 0.5}, {"center": True}),
}
GAINS = (1.0, 2.0, 0.5, "auto", "initial_norm", "kernel_norm")
# Keras on JAX computes float64 only where JAX's x64 is switched on for the whole process.
POLICIES = (
    "float32",
    "mixed_float16",
    "mixed_bfloat16",
    *(() if BACKEND == "jax" else ("float64",)),
)
INNER = ("SGD", "Momentum", "Adam", "AdamW", "RMSprop", "Lion", "Muon")
UPDATES = ("newton_orthogonalization", "polar_express", "row_equilibration")
WEIGHTS = ("newton_step", "frobenius_normalization")
EXTRAS: dict[str, dict[str, Any]] = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "moving average": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "clipping": {"global_clipnorm": 0.1},
    "loss scale": {"loss_scale_factor": 8.0},
}
OPERATIONS = (
    "train",
    "call",
    "fold_model",
    "fold",
    "save",
    "save_weights",
    "clone",
    "from_config",
    "deepcopy",
    "pickle",
    "freeze",
    "thaw",
    "set_gain",
    "reset_gains",
    "convert_again",
    "lora",
)
# A layer has no conditioning afterwards.
QUANTIZATIONS = ("int8", "int4", "float8")
# Keras quantizes no other layers.
QUANTIZED = ("Dense", "Dense of sequences", "Dense, wide", "EinsumDense", "Embedding")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer, and what `condition_optimizer()` adds to it.

    Args:
        inner: One of `INNER`.
        update: The `update_conditioner`, or None.
        weight: The `weight_conditioner`, or None.
        extra: One of `EXTRAS`, or None.
    """

    inner: str = "SGD"
    update: str | None = None
    weight: str | None = None
    extra: str | None = None


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A conditioned layer in a small model, and what is done with it.

    Args:
        kind: A name in `KINDS`.
        variant: The position of its variant.
        options: Further arguments of the layer, as pairs.
        form: `"class"`, `"wrapper"` or `"converted"`: how the layer is conditioned.
        methods: Pairs of a method's name and the position of its arguments in `METHODS`.
        given_as: The form of the argument `kernel_conditioner`.
        gain: One of `GAINS`.
        trainable_gain: The argument.
        policy: One of `POLICIES`.
        kernel: How the kernel is drawn.
        is_shared: Whether the model calls the layer twice.
        optimizer: `Optimizer`.
        operations: Names of operations, in their order.
    """

    kind: str
    variant: int = 0
    options: tuple[tuple[str, Any], ...] = ()
    form: str = "class"
    methods: tuple[tuple[str, int], ...] = (("row_equilibration", 0),)
    given_as: str = "name"
    gain: float | str = 1.0
    trainable_gain: str | None = None
    policy: str = "float32"
    kernel: str = "normal"
    is_shared: bool = False
    optimizer: Optimizer = Optimizer()
    operations: tuple[str, ...] = ()

    @property
    def layer(self) -> Variant:
        return KINDS[self.kind][self.variant]

    @property
    def steps(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """The methods with their arguments."""
        return tuple((name, METHODS[name][index]) for name, index in self.methods)


@st.composite
def _methods(draw):
    names = draw(st.lists(st.sampled_from([*METHODS]), min_size=1, max_size=2))
    return tuple((name, draw(st.integers(0, len(METHODS[name]) - 1))) for name in names)


@st.composite
def _optimizers(draw):
    return Optimizer(
        inner=draw(st.sampled_from(INNER)),
        update=draw(st.sampled_from([None, *UPDATES])),
        weight=draw(st.sampled_from([None, *WEIGHTS])),
        extra=draw(st.sampled_from([None, *EXTRAS])),
    )


@st.composite
def layer_configurations(draw):
    """Configurations without operations. The first value of each choice is the simplest."""
    kind = draw(st.sampled_from([*KINDS]))
    variant = draw(st.integers(0, len(KINDS[kind]) - 1))
    layer = KINDS[kind][variant]
    choices = {"activation": (None, "relu", "tanh"), "use_bias": (True, False)}
    # Drawn for every layer: what takes fewer choices is simpler to Hypothesis.
    drawn = [(name, draw(st.sampled_from(values))) for name, values in choices.items()]
    options = tuple((name, value) for name, value in drawn if name in layer.options)
    forms = ["class"] if layer.conditioned else []
    # `condition_model()` converts the layers of a model inside the model, and not that itself.
    forms += ["wrapper"] if kind == "Sequential" else ["wrapper", "converted"]
    methods = draw(_methods())
    given_as = ("name", "instance", "config") if len(methods) == 1 else ("list",)
    return Configuration(
        kind=kind,
        variant=variant,
        options=options,
        form=draw(st.sampled_from(forms)),
        methods=methods,
        given_as=draw(st.sampled_from(given_as)),
        gain=draw(st.sampled_from(GAINS)),
        trainable_gain=draw(st.sampled_from([None, "scalar", "per_unit"])),
        policy=draw(st.sampled_from(POLICIES)),
        kernel=draw(st.sampled_from(["normal", "badly scaled", "zero row"])),
        is_shared=draw(st.booleans()),
        optimizer=draw(_optimizers()),
    )


@st.composite
def configurations(draw):
    """Configurations with operations."""
    layer = draw(layer_configurations())
    operations = draw(st.lists(st.sampled_from(OPERATIONS), min_size=0, max_size=4))
    modes = QUANTIZATIONS if layer.kind in QUANTIZED else ()
    if layer.kind == "Embedding":
        # Keras has no float8 for it. Under mixed precision, Keras computes with the quantized
        # rows in float32 inside of other layers, which a wrapper is, and in half precision else.
        modes = () if layer.policy.startswith("mixed") else ("int8", "int4")
    last = draw(st.sampled_from([None, *modes]))
    return dataclasses.replace(layer, operations=(*operations, *([last] if last else [])))
