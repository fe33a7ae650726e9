import pytest

from benchmarks.comparison import families


@pytest.fixture
def family():
    return families.FAMILIES["shape"]


@pytest.fixture
def scores(family):
    names = dict.fromkeys(family.normalizations("sgd"), 0.90)
    return {**names, "row_equilibration": 0.95, "spectral_normalization": 0.93}
