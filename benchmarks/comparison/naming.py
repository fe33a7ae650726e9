"""The names of normalizations: of weights, joined to one of activations where there is one."""

from benchmarks.comparison import families


def base_of(name):
    """The normalization of activations in a name, "none" where there is none."""
    first = name.partition(",")[0].partition("+")[0]
    return first if first in ("batch", "layer") else families.PLAIN


def method_of(name):
    """The normalization of weights in a name, "" where there is none."""
    return "" if is_plain(name) else without_base(name)


def without_base(name):
    """What a name says beside the normalization of activations, if it joins it to something."""
    return name.removeprefix(f"{base_of(name)}+")


def is_plain(name):
    """Whether no kernel is conditioned in the forward pass."""
    around = without_base(name) in families.AROUND
    return "," in name or name == base_of(name) or is_constraint(name) or around


def is_constraint(name):
    """Whether only what is stored is conditioned, after each update."""
    return without_base(name) == "constraint"


def with_base(base, method):
    """The name of a method under a normalization of activations."""
    return method if base == families.PLAIN else f"{base}+{method}"


def is_matched(name):
    """Whether its scale is that of row equilibration."""
    return name.endswith(families.MATCHED)
