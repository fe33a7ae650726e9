import importlib.util

import pytest

from keras_wcond import ConditionedDense, ConditionedEinsumDense
from tests.keras_own.loading import keras_tests

# Its tests of stores of arrays and of files on a disk are left out: they build no layers.
saving_lib_test = keras_tests("saving.saving_lib_test", "Dense", "EinsumDense")
plain_application = pytest.mark.skip(reason="Keras' test builds an EfficientNet of plain layers")


class TestSaving(saving_lib_test.SavingTest):
    def test_the_conditioned_classes_are_the_ones_under_test(self):
        layers = saving_lib_test.keras.layers
        assert type(layers.Dense(4)) is ConditionedDense
        assert type(layers.EinsumDense("ab,bc->ac", 4)) is ConditionedEinsumDense

    test_partial_load = pytest.mark.skip(
        reason="Keras' test asserts the wording of its own error, and ours is another one"
    )(saving_lib_test.SavingTest.test_partial_load)

    test_weights_sharding_efficientnet_b0_512 = plain_application(
        saving_lib_test.SavingTest.test_weights_sharding_efficientnet_b0_512
    )
    test_weights_sharding_efficientnet_b0_10 = plain_application(
        saving_lib_test.SavingTest.test_weights_sharding_efficientnet_b0_10
    )


class TestSavingAPI(saving_lib_test.SavingAPITest):
    """Every test is Keras' own."""


class TestSavingBattle(saving_lib_test.SavingBattleTest):
    test_legacy_load_skips_missing_nested_containers = pytest.mark.skip(
        reason="Keras' test reads a file that its wheel lacks"
    )(saving_lib_test.SavingBattleTest.test_legacy_load_skips_missing_nested_containers)

    test_remove_weights_only_saving_and_loading = pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="Keras reads remote files by TensorFlow, which is not installed",
    )(saving_lib_test.SavingBattleTest.test_remove_weights_only_saving_and_loading)


class TestSavingH5IOStore(saving_lib_test.SavingH5IOStoreTest):
    """Every test is Keras' own."""


class TestSafeZipRead(saving_lib_test.SafeZipReadTest):
    """Every test is Keras' own."""


class TestSafeGetH5Dataset(saving_lib_test.SafeGetH5DatasetTest):
    """Every test is Keras' own."""
