"""The search for configurations that fail, and the simplest one for each cause."""

import collections
import contextlib
import gc
import time

import hypothesis
import keras
from hypothesis import HealthCheck, Phase

from tests.fuzzing.configurations import configurations
from tests.fuzzing.properties import outcome

SECONDS_OF_SHRINKING = 120.0
# JAX maps each program that it compiled into memory, and ends where a process has too many maps.
COUNT_BETWEEN_CLEARINGS = 125


def run_chunk(count, seed):
    """The record of a number of configurations, those that fail shrunk.

    Args:
        count: Number of configurations.
        seed: Seed from which they are drawn.

    Returns:
        Dict that can be written as JSON.
    """
    # Keras collects garbage whenever it quantizes, among all that was imported, too.
    gc.collect()
    gc.freeze()
    start = time.perf_counter()
    known = {}

    def remember(configuration):
        if configuration not in known:
            known[configuration] = outcome(configuration)
            if len(known) % COUNT_BETWEEN_CLEARINGS == 0:
                _forget_compiled_programs()

    _draw(remember, count, seed, [Phase.generate])
    seconds = time.perf_counter() - start
    kinds = collections.Counter(each.kind for each in known.values())
    signatures = {each.signature for each in known.values() if each.kind == "failed"}
    return {
        "seed": seed,
        "count": count,
        "distinct": len(known),
        "seconds": round(seconds, 1),
        "passed": kinds["passed"],
        "refused": kinds["refused"],
        "refused by Keras": kinds["refused by Keras"],
        "failed": kinds["failed"],
        "failures": [_simplest(known, signature, count, seed) for signature in sorted(signatures)],
    }


def _forget_compiled_programs():
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


def _simplest(known, signature, count, seed):
    """The simplest configuration with a failure of the same cause."""
    number = sum(each.signature == signature for each in known.values())
    end = time.perf_counter() + SECONDS_OF_SHRINKING
    failing = []

    def fail_alike(configuration):
        if configuration not in known:
            if time.perf_counter() > end:
                return
            known[configuration] = outcome(configuration)
        if known[configuration].signature == signature:
            failing.append(configuration)
            raise AssertionError(signature)

    with contextlib.suppress(AssertionError):
        # The same configurations are drawn again, up to the one that fails.
        _draw(fail_alike, count, seed, [Phase.generate, Phase.shrink])
    simplest = failing[-1]
    return {
        "signature": signature,
        "configuration": repr(simplest),
        "reason": known[simplest].reason[:2000],
        "number": number,
    }


def _draw(function, count, seed, phases):
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=phases,
        print_blob=False,
        suppress_health_check=[*HealthCheck],
        verbosity=hypothesis.Verbosity.quiet,
    )
    hypothesis.seed(seed)(settings(hypothesis.given(configurations())(function)))()


def totals(chunks):
    """The sums over chunks."""
    names = ("count", "distinct", "seconds", "passed", "refused", "refused by Keras", "failed")
    return {name: round(sum(chunk[name] for chunk in chunks), 1) for name in names}
