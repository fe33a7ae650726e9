import gc
import os

import hypothesis
import keras
import pytest

hypothesis.settings.register_profile("local", deadline=None, max_examples=200)
hypothesis.settings.register_profile(
    # The same examples each time; new ones come where tests are run by hand. The mathematics is
    # written once: it is searched where an example takes least, and tried on the other backends.
    "ci",
    parent=hypothesis.settings.get_profile("local"),
    derandomize=True,
    max_examples=100 if keras.backend.backend() == "torch" else 25,
)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "local")


@pytest.fixture(autouse=True, scope="module")
def _little_to_search():
    """Keras collects garbage whenever it quantizes, among all that other tests have left, too."""
    gc.collect()
    gc.freeze()
