"""Seconds of functions that run in turn, and the ratios of one to another."""

import random
import statistics
import time

from benchmarks.shared import progress


def seconds_of(function):
    """Seconds of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def time_in_turn(functions, budget, most, desc):
    """Seconds of each function by name, a list over the rounds, after two that warm up."""
    for function in functions.values():
        function()
    warm = {name: seconds_of(function) for name, function in functions.items()}
    rounds = int(min(most, max(5, budget / sum(warm.values()))))
    seconds = {name: [] for name in functions}
    order = list(functions)
    shuffle = random.Random(0).shuffle
    for _ in progress.bar(range(rounds), desc=desc, unit="round"):
        shuffle(order)  # What one leaves in caches is another one's gain, but not always the same.
        for name in order:
            seconds[name].append(seconds_of(functions[name]))
    return seconds


def ratios(seconds, others):
    """The ratio of each round, to four digits."""
    return [float(f"{own / other:.4g}") for own, other in zip(seconds, others, strict=True)]


def quartiles(values):
    """The first quartile, the median and the third quartile."""
    return statistics.quantiles(values, n=4)
