"""The configurations that the package refuses, each with the words of its error."""

import re

# Layers whose kernels have no activation of their own, when they are wrapped.
WITHOUT_ACTIVATION = (
    "SimpleRNN",
    "LSTM",
    "GRU",
    "Bidirectional",
    "RNN of cells",
    "ConvLSTM1D",
    "Embedding",
    "SeparableConv1D",
    "SeparableConv2D",
    "MultiHeadAttention",
    "GroupQueryAttention",
)


def _wraps_without_activation(configuration):
    return configuration.gain == "auto" and configuration.kind in WITHOUT_ACTIVATION


def _is_frozen(configuration):
    # Adapters freeze the kernel that they update.
    return bool({"freeze", "lora"} & {*configuration.operations})


REFUSALS = (
    (
        _wraps_without_activation,
        r"to which not just one activation belongs\. Received: gain='auto'",
    ),
    (
        _is_frozen,
        r"a model with a trainable kernel.* Received: .*whose chosen kernels are all frozen",
    ),
)


def is_documented(configuration, error):
    """Whether an error is the one that the package documents for a configuration."""
    return isinstance(error, (ValueError, TypeError)) and any(
        applies(configuration) and re.search(words, str(error), re.DOTALL)
        for applies, words in REFUSALS
    )
