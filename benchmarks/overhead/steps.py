"""A training step and an inference as functions without arguments, on every backend and twin.

Each returns when the device is done. Steps are those of a loop of one's own: forward, backward and
plain SGD, compiled as a whole on JAX and TensorFlow, which is how `fit()` compiles them, and eager
on PyTorch. SGD takes the least time of all optimizers, so that what comes on top shows the most.
JAX and PyTorch tell too how much memory a training step takes: a function that returns bytes.
"""

import functools
import json
import pathlib
import tempfile

import numpy as np

from benchmarks.overhead import networks

RATE = 1e-3


def of(case, normalization):
    """`{"training": step, "inference": call}`, and on JAX and PyTorch `"memory"`, of a network."""
    if normalization.startswith("PyTorch"):
        return of_torch(*networks.torch_twin(case, normalization), case.batch)
    if normalization.startswith("Flax"):
        return of_flax(*networks.flax_twin(case, normalization), case.batch)
    model = case.model(normalization)
    made = of_keras(model, case.batch, case.optimizer(normalization, model, RATE))
    if normalization in (networks.SELDOM, networks.EIGHT_STEPS):
        # Only one step in eight conditions kernels.
        made["training"] = repeated(made["training"], networks.EVERY)
    return made


def repeated(step, times):
    """So many steps, as one."""

    def steps():
        for _ in range(times):
            step()

    return steps


def normal(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def of_keras(model, batch, optimizer=None):
    """`{"training": step, "inference": call}` of a Keras model on random data.

    The optimizer is plain SGD unless one is given.
    On JAX and PyTorch, `"memory"` is there too: a function that returns the bytes of a step.
    """
    import keras
    from keras import ops

    x = ops.convert_to_tensor(normal((batch, *model.input_shape[1:]), seed=0))
    y = ops.convert_to_tensor(normal((batch, *model.output_shape[1:]), seed=1))
    optimizer = optimizer or keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)

    def loss_of(outputs):
        return ops.mean(ops.square(outputs - y))

    backend = keras.backend.backend()
    made = {"jax": _on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}[backend]
    return made(model, optimizer, x, loss_of)


def _on_jax(model, optimizer, x, loss_of):
    import jax

    def loss(trainable, others, x):
        outputs, others = model.stateless_call(trainable, others, x, training=True)
        return loss_of(outputs), others

    def step(trainable, others, slots, x):
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, others, x)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return value, trainable, others, slots

    def call(trainable, others, x):
        return model.stateless_call(trainable, others, x, training=False)[0]

    variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables
    # Copies, since a step gives the memory of its arguments away.
    state = [[variable.value.copy() for variable in each] for each in variables]
    step = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, x).compile()
    call = jax.jit(call).lower(*state[:2], x).compile()

    def training():
        value, *state[:] = step(*state, x)
        value.block_until_ready()

    def inference():
        call(*state[:2], x).block_until_ready()

    return {"training": training, "inference": inference, "memory": lambda: _temporaries(step)}


def _temporaries(compiled):
    """Bytes of a compiled program beside its arguments and results; nothing else holds any."""
    return compiled.memory_analysis().temp_size_in_bytes


def _on_tensorflow(model, optimizer, x, loss_of):
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def step(x):
        with tf.GradientTape() as tape:
            value = loss_of(model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    @tf.function(jit_compile=True)
    def call(x):
        return model(x, training=False)

    def inference():
        # One number of it is waited for, and copied.
        float(tf.reshape(call(x), (-1,))[0])

    return {"training": lambda: float(step(x)), "inference": inference}


def _on_torch(model, optimizer, x, loss_of):
    import torch

    def training():
        model.zero_grad()
        value = loss_of(model(x, training=True))
        value.backward()
        variables = model.trainable_variables
        with torch.no_grad():
            optimizer.apply([variable.value.grad for variable in variables], variables)
        _wait(torch)

    def inference():
        with torch.no_grad():
            model(x, training=False)
        _wait(torch)

    memory = functools.partial(peak_of_tensors, training)
    return {"training": training, "inference": inference, "memory": memory}


def peak_of_tensors(step):
    """The most bytes that PyTorch tensors on the CPU which a step makes hold at a time."""
    from torch import profiler

    step()  # A first step is not like those that follow it.
    activities = [profiler.ProfilerActivity.CPU]
    with profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = [event["args"] for event in events if event["name"] == "[memory]"]
    held, most = {}, 0
    for change in sorted(changes, key=lambda change: change["Ev Idx"]):
        # What is given back, a negative number, may be older than the step.
        if change["Bytes"] > 0:
            held[change["Addr"]] = change["Bytes"]
        else:
            held.pop(change["Addr"], None)
        most = max(most, sum(held.values()))
    return most


def of_torch(module, shape, batch):
    """The same of a PyTorch module, by PyTorch's own SGD."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = module.to(device)
    x = torch.from_numpy(normal((batch, *shape), seed=0)).to(device)
    with torch.no_grad():
        y = torch.from_numpy(normal(tuple(module(x).shape), seed=1)).to(device)
    optimizer = torch.optim.SGD(module.parameters(), RATE)

    def training():
        module.train()
        optimizer.zero_grad()
        (module(x) - y).square().mean().backward()
        optimizer.step()
        _wait(torch)

    def inference():
        module.eval()
        with torch.no_grad():
            module(x)
        _wait(torch)

    memory = functools.partial(peak_of_tensors, training)
    return {"training": training, "inference": inference, "memory": memory}


def _wait(torch):
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def of_flax(module, shape, batch):
    """The same of a Flax module, by SGD written out."""
    import jax

    x = jax.numpy.asarray(normal((batch, *shape), seed=0))
    variables = module.init(jax.random.key(0), x)
    y = jax.numpy.asarray(normal(module.apply(variables, x).shape, seed=1))

    def loss(variables, x):
        return jax.numpy.mean(jax.numpy.square(module.apply(variables, x) - y))

    def step(variables, x):
        value, gradients = jax.value_and_grad(loss)(variables, x)
        return value, jax.tree.map(lambda w, g: w - RATE * g, variables, gradients)

    state = [variables]
    step = jax.jit(step, donate_argnums=0).lower(variables, x).compile()
    call = jax.jit(module.apply).lower(variables, x).compile()

    def training():
        value, state[0] = step(state[0], x)
        value.block_until_ready()

    def inference():
        call(state[0], x).block_until_ready()

    return {"training": training, "inference": inference, "memory": lambda: _temporaries(step)}
