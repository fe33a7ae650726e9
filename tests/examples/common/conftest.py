import pytest

from tests.examples.loading import example


@pytest.fixture(scope="module")
def traced():
    return example("common.traced_scene").traced_scene(size=16, train=16, validation=2, test=2)
