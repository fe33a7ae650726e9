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


# PyTorch sums up norms in another way on a GPU, which a CPU can do as well.
ON_GPU = [False, True] if keras.backend.backend() == "torch" else [False]


@pytest.fixture(scope="module", params=ON_GPU, ids=lambda on_gpu: "as on a GPU" * on_gpu)
def each_arithmetic(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            from keras_wcond.backends.torch import kernels

            patch.setattr(kernels, "is_summed_in_float64", lambda kernel: kernel.element_size() < 8)
        yield


@pytest.fixture(autouse=True, scope="module")
def _little_to_search():
    """Keras collects garbage whenever it quantizes, among all that other tests have left, too."""
    gc.collect()
    gc.freeze()
