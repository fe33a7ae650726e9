import pytest

from keras_wcond.layers.base.conditioned_layer import ConditionedLayer


@pytest.fixture(autouse=True)
def _plain_by_default(monkeypatch):
    """Keras' tests do not name a conditioner, and are to find the plain layer."""
    defaults = ConditionedLayer.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "kernel_conditioner", None)
