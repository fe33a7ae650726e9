"""A few configurations on each backend. `python -m tests.fuzzing` runs as many as are wanted."""

import keras
from hypothesis import HealthCheck, given, settings

from keras_wcond.reparametrization import Reparametrization
from tests.fuzzing import search
from tests.fuzzing.configurations import Configuration, Optimizer, configurations
from tests.fuzzing.properties import Outcome, outcome

# JAX compiles each operation for each shape, which takes longer than all else.
NUMBER = 10 if keras.backend.backend() == "jax" else 30


@settings(max_examples=NUMBER, deadline=None, database=None, suppress_health_check=[*HealthCheck])
@given(configuration=configurations())
def test_configurations_have_all_properties(configuration):
    found = outcome(configuration)
    assert found.kind != "failed", found.reason


def test_refusals_are_told_apart():
    wrapped = Configuration("LSTM", form="wrapper", gain="auto")
    assert outcome(wrapped).kind == "refused"
    # Keras has no quantized convolutions.
    assert outcome(Configuration("Conv1D", operations=("int8",))).kind == "refused by Keras"
    assert outcome(Configuration("Conv1D", operations=("call",))).kind == "passed"


def _slightly_larger(apply):
    def changed(self, *args, **kwargs):
        return apply(self, *args, **kwargs) * 1.0001

    return changed


def test_a_small_error_in_the_package_is_found(monkeypatch):
    monkeypatch.setattr(Reparametrization, "apply", _slightly_larger(Reparametrization.apply))
    found = outcome(Configuration("Dense"))
    assert found.kind == "failed"
    assert "conditioned kernel differs" in found.reason


def test_failures_are_counted_and_shrunk(monkeypatch):
    def fails_in_part(configuration):
        is_failing = configuration.gain == 2.0 and configuration.policy == "mixed_float16"
        return Outcome("failed", "reason", "signature") if is_failing else Outcome("passed")

    monkeypatch.setattr(search, "outcome", fails_in_part)
    record = search.run_chunk(200, seed=0)
    assert record["failed"] > 0
    assert record["failed"] + record["passed"] == record["distinct"]
    assert search.totals([record, record])["failed"] == 2 * record["failed"]
    (failure,) = record["failures"]
    found = failure["configuration"]
    # What does not matter for the failure is gone. Which layer is the simplest may differ.
    assert "gain=2.0, trainable_gain=None, policy='mixed_float16'" in found
    assert "methods=(('row_equilibration', 0),)" in found
    assert f"optimizer={Optimizer()}, operations=()" in found
    assert failure["number"] == record["failed"]
