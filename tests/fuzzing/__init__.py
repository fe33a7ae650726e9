"""A fuzzer of configurations: layers, methods, gains, dtypes, optimizers, orders of operations.

`python -m tests.fuzzing --count 10000 --seed 0` runs it on the backend in force.
"""
