"""One model through any order of operations: it always computes what the reference does."""

import dataclasses

import keras
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzzing.configurations import Configuration, layer_configurations
from tests.fuzzing.operations import OPERATIONS, has_lora
from tests.fuzzing.subject import Subject, quietly

# Neither Keras nor the package refuses any of them. JAX compiles each operation for each shape.
SMALL = (
    Configuration("Dense"),
    Configuration("Conv2D"),
    Configuration("LSTM", form="wrapper"),
    Configuration("MultiHeadAttention"),
)
KINDS = SMALL[:2] if keras.backend.backend() == "jax" else SMALL


def configurations_of_models():
    """The layers above, with everything else as drawn."""
    kept = ("methods", "given_as", "trainable_gain", "kernel", "is_shared", "optimizer")

    def with_layer(drawn, layer):
        gain = 2.0 if drawn.gain == "auto" else drawn.gain
        changes = {name: getattr(drawn, name) for name in kept}
        return dataclasses.replace(layer, gain=gain, **changes)

    return st.builds(with_layer, layer_configurations(), st.sampled_from(KINDS))


class ModelMachine(RuleBasedStateMachine):
    """Operations on one model, after each of which the outputs are checked."""

    @initialize(configuration=configurations_of_models())
    def make(self, configuration):
        keras.utils.set_random_seed(0)
        # Further operations may copy a layer that has adapters: see `operations.lora`.
        configuration = dataclasses.replace(configuration, operations=("clone",))
        self.subject = quietly(Subject, configuration)

    def can_train(self):
        """Whether an optimizer that conditions kernels has one to train."""
        own = self.subject.configuration.optimizer
        is_plain = own.update is None and own.weight is None
        is_frozen = not self.subject.layer.trainable or has_lora(self.subject)
        return is_plain or not is_frozen

    @precondition(can_train)
    @rule()
    def train(self):
        quietly(OPERATIONS["train"], self.subject)

    @rule(name=st.sampled_from(["call", "fold", "fold_model"]))
    def look(self, name):
        quietly(OPERATIONS[name], self.subject)

    @rule(name=st.sampled_from(["clone", "from_config", "deepcopy", "pickle"]))
    def copy(self, name):
        quietly(OPERATIONS[name], self.subject)

    @rule(name=st.sampled_from(["save", "save_weights"]))
    def load(self, name):
        quietly(OPERATIONS[name], self.subject)

    @rule(name=st.sampled_from(["freeze", "thaw"]))
    def set_trainable(self, name):
        quietly(OPERATIONS[name], self.subject)

    @rule(name=st.sampled_from(["set_gain", "reset_gains"]))
    def change_gain(self, name):
        quietly(OPERATIONS[name], self.subject)

    @rule()
    def convert_again(self):
        quietly(OPERATIONS["convert_again"], self.subject)

    @rule()
    def adapt(self):
        quietly(OPERATIONS["lora"], self.subject)

    @invariant()
    def outputs_are_those_of_the_reference(self):
        if hasattr(self, "subject"):
            quietly(self.subject.check)


TestModelMachine = ModelMachine.TestCase
TestModelMachine.settings = settings(
    max_examples=4 if keras.backend.backend() == "jax" else 10,
    stateful_step_count=8,
    deadline=None,
    database=None,
    suppress_health_check=[*HealthCheck],
)
