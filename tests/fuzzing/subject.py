"""A conditioned model, and the outputs that the reference expects of it."""

import dataclasses
import warnings

import keras
import ml_dtypes
import numpy as np

from keras_wcond import Conditioned
from tests.fuzzing import networks
from tests.fuzzing.mathematics import Formula, activation_gain
from tests.helpers import to_numpy


class PropertyError(AssertionError):
    """A property that does not hold."""


def require(holds, what):
    if not holds:
        raise PropertyError(what)


def epsilon_of(dtype):
    return float(ml_dtypes.finfo(dtype).eps)


def exactly_equal(one, other):
    return all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


class Subject:
    """A model with a layer to test, through a series of operations.

    Args:
        configuration: `Configuration`.
        is_plain: Whether the layer is Keras' plain one, on which nothing is checked. Defaults to
            `False`.
    """

    def __init__(self, configuration, is_plain=False):
        self.configuration = configuration
        self.is_plain = is_plain
        self.inputs = self._inputs()
        self.is_compiled = False
        make = networks.plain_model if is_plain else networks.conditioned_model
        self.model = make(configuration)
        if not is_plain:
            self.check_initial_gains()
        self._draw_kernels()

    @property
    def layer(self):
        return self.model.get_layer(networks.NAME)

    @property
    def owner(self):
        """The layer that Keras' own methods, such as `enable_lora()`, belong to."""
        return self.layer.layer if isinstance(self.layer, Conditioned) else self.layer

    @property
    def is_wide(self):
        """Whether kernels are stored in float64."""
        return self.configuration.policy == "float64"

    @property
    def compute_dtype(self):
        return keras.DTypePolicy(self.configuration.policy).compute_dtype

    def outputs(self, model=None, training=False):
        return to_numpy((model or self.model)(self.inputs, training=training))

    def weights(self):
        return [to_numpy(weight).copy() for weight in self.model.weights]

    def formulas(self):
        configuration = self.configuration
        kernels = configuration.layer.kernels
        return [
            Formula(configuration.steps, self.layer.gain, axes, self._activation_gain(i))
            for i, axes in enumerate(kernels)
        ]

    def raw_kernels(self):
        """Each kernel W in float64, low-rank updates merged."""
        merged = []
        for kernel in self.layer.raw_kernels.values():
            value = to_numpy(kernel).astype("float64")
            if getattr(self.owner, "lora_enabled", False):
                a, b = (
                    to_numpy(getattr(self.owner, f"lora_{kernel.name}_{factor}")).astype("float64")
                    for factor in "ab"
                )
                value = value + self.owner.lora_alpha / self.owner.lora_rank * (a @ b)
            merged.append(value)
        return merged

    def gains(self):
        """The gains that are weights, or None for each kernel."""
        weights = self.layer.gain_weights
        if not weights:
            return [None for _ in self.configuration.layer.kernels]
        return [to_numpy(weight).astype("float64") for weight in weights]

    def check_initial_gains(self):
        """Gains that are weights start at the values of the reference."""
        arguments = self.configuration
        has_weights = arguments.gain == "initial_norm" or arguments.trainable_gain is not None
        number = len(arguments.layer.kernels)
        require(len(self.layer.gain_weights) == has_weights * number, "number of gains")
        if not has_weights:
            return
        # They have the dtype of their layer. Wrapped models have no other one than float32.
        epsilon_of_gains = epsilon_of(self.layer.variable_dtype)
        kernels, gains = self.raw_kernels(), self.gains()
        for formula, kernel, gain in zip(self.formulas(), kernels, gains, strict=True):

            def initial(kernel, formula=formula):
                return formula.initial_gain(kernel, arguments.trainable_gain)

            epsilon = max(self.epsilon_of_kernels(), epsilon_of_gains)
            bound = formula.rounding(kernel, epsilon, initial)
            require(
                np.all(np.abs(gain - initial(kernel)) <= bound),
                f"initial gain {gain} is not {initial(kernel)}, up to {bound:g}",
            )

    def epsilon_of_kernels(self):
        return epsilon_of("float64" if self.is_wide else "float32")

    def expected_kernels(self):
        """Pairs of gain · C(W) by the reference, and how far a kernel may be from it."""
        pairs = []
        values = zip(self.formulas(), self.raw_kernels(), self.gains(), strict=True)
        for formula, kernel, gain in values:

            def value(kernel, formula=formula, gain=gain):
                return formula.value(kernel, gain)

            bound = formula.rounding(kernel, self.epsilon_of_kernels(), value)
            pairs.append((value(kernel), bound))
        return pairs

    def check(self):
        """The model computes what the plain one does with kernels from the reference."""
        if self.is_plain:
            self.outputs()
            return
        pairs = self.expected_kernels()
        self._check_kernels(pairs)
        self.require_expected(self.outputs(), pairs, "outputs")

    def require_expected(self, outputs, pairs, what):
        """Outputs are those of the plain model with the expected kernels, up to rounding."""
        expected, tolerance = self.expected_outputs(pairs)
        require(outputs.dtype == expected.dtype, f"dtype of {what}: {outputs.dtype}")
        difference = np.max(np.abs(outputs.astype("float64") - expected.astype("float64")))
        require(difference <= tolerance, f"{what} differ by {difference:.3g} > {tolerance:.3g}")

    def expected_outputs(self, pairs):
        """Outputs of the plain model, and their tolerance by the dtypes of the computation."""
        plain = networks.plain_model(self.configuration)
        dtype = self.compute_dtype
        if dtype == "float64" and keras.backend.backend() == "torch":
            dtype = "float32"  # In which Keras' `ops.matmul` computes there.
        epsilon = epsilon_of(dtype)
        set_kernels(plain, self, [kernel for kernel, _ in pairs])
        expected = self.outputs(plain)
        length = max(np.size(kernel) // kernel.shape[-1] for kernel, _ in pairs)
        tolerance = length * epsilon * np.max(np.abs(expected.astype("float64")))
        for seed in range(2):
            generator = np.random.default_rng(seed)
            moved = [
                kernel
                + generator.choice([-1.0, 1.0], kernel.shape) * (bound + epsilon * abs(kernel))
                for kernel, bound in pairs
            ]
            set_kernels(plain, self, moved)
            change = self.outputs(plain).astype("float64") - expected.astype("float64")
            # Errors of random signs add up to the root of what those of one sign do.
            tolerance += np.sqrt(length) * np.max(np.abs(change))
        return expected, tolerance

    def _check_kernels(self, pairs):
        compute = epsilon_of(self.compute_dtype)
        found = self.layer.conditioned_kernels.values()
        for tensor, (kernel, bound) in zip(found, pairs, strict=True):
            difference = np.abs(to_numpy(tensor).astype("float64") - kernel)
            allowed = bound + compute * np.abs(kernel)
            require(
                np.all(difference <= allowed),
                f"conditioned kernel differs by {difference.max():.3g}, not {allowed.max():.3g}",
            )

    def _activation_gain(self, index):
        configuration = self.configuration
        name = dict(configuration.options).get("activation")
        is_last = index == len(configuration.layer.kernels) - 1
        return activation_gain(name) if is_last else 1.0

    def _inputs(self):
        arrays = self.configuration.layer.inputs(seed=1)
        if self.configuration.is_shared:
            arrays = [*arrays, *self.configuration.layer.inputs(seed=2)]
        return arrays

    def _draw_kernels(self):
        """Sets kernels and biases to numbers that are drawn."""
        generator = np.random.default_rng(3)
        kernels = self.configuration.kernel
        for weight in kernel_variables(self.layer):
            value = generator.normal(size=weight.shape)
            if kernels == "badly scaled":
                value = value * 10.0 ** generator.uniform(-1.0, 1.0, size=weight.shape[-1])
            if kernels == "zero row":
                value[..., 0] = 0.0
            weight.assign(value / np.sqrt(value.shape[0]))
        if not self.is_plain:
            self.layer.reset_gains()
            if kernels != "zero row":
                self.check_initial_gains()


def kernel_variables(layer):
    """The weights with at least two axes that are no biases."""
    return [
        weight
        for weight in layer.weights
        if len(weight.shape) > 1
        and not any(part in weight.name for part in ("bias", "gain", "lora"))
    ]


def set_kernels(plain, subject, kernels):
    """Sets the weights of a plain model to a conditioned one's, and its kernels to given ones."""
    given = {
        id(variable): kernel
        for variable, kernel in zip(subject.layer.raw_kernels.values(), kernels, strict=True)
    }
    left = {id(gain) for gain in subject.layer.gain_weights}
    weights = [
        weight
        for weight in subject.model.weights
        if id(weight) not in left and "lora" not in weight.name
    ]
    for weight, variable in zip(weights, plain.weights, strict=True):
        variable.assign(given.get(id(weight), to_numpy(weight)))


def quietly(function, *arguments):
    """Keras warns of what it leaves out, and on JAX of dtypes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


def with_layer(configuration, **changes):
    return dataclasses.replace(configuration, **changes)
