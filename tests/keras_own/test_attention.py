from keras_wcond import ConditionedGroupQueryAttention, ConditionedMultiHeadAttention
from tests.keras_own.loading import keras_tests

multi_head_test = keras_tests("layers.attention.multi_head_attention_test", "MultiHeadAttention")
group_query_test = keras_tests(
    "layers.attention.grouped_query_attention_test", GroupedQueryAttention="GroupQueryAttention"
)


class TestMultiHeadAttention(multi_head_test.MultiHeadAttentionTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        layer = multi_head_test.layers.MultiHeadAttention(2, 3)
        assert type(layer) is ConditionedMultiHeadAttention
        assert layer.kernel_conditioner is None


class TestGroupQueryAttention(group_query_test.GroupedQueryAttentionTest):
    def test_the_conditioned_class_is_the_one_under_test(self):
        layer = group_query_test.layers.GroupedQueryAttention(3, 4, 2)
        assert type(layer) is ConditionedGroupQueryAttention
        assert layer.kernel_conditioner is None
