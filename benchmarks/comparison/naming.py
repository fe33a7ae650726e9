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


def start_of(name):
    """The name of the plain network that starts from the kernels that a method makes.

    A method that only scales kernels starts as the plain network of tuned scale. Orthogonal updates
    start from plain kernels where the name says nothing else.
    """
    base, method = base_of(name), without_base(name).partition("+")[0]
    if method == families.ROWS:
        return f"{base}, {families.MATCHED}"
    started = (families.STORED, families.CENTERED_STORED, families.STARTED_UPDATES)
    if without_base(name) in started:
        return with_base(base, families.ORTHOGONAL)
    if method == families.UNCENTERED:
        return with_base(base, families.ORTHOGONAL)
    if method in families.STARTS_OF:
        return with_base(base, f"{method}+at_start")
    return f"{base}, {families.TUNED}"


def is_start(name):
    """Whether a network differs from another one only at the start of training."""
    return "," in name or without_base(name) in families.AT_START


def is_regularized(name):
    """Whether its loss has a penalty, whose factor is tuned."""
    return without_base(name) == families.REGULARIZED


def is_matched(name):
    """Whether its scale is that of row equilibration."""
    return name.endswith(families.MATCHED)
