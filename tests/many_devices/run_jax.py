"""Run by the test in a process with eight simulated devices: losses and exchanges, as JSON."""

import json
import re
import sys

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from on_jax import LAYOUTS, distribution
from transformer import batches, compiled, transformer

STEPS, BATCH = 10, 24
EXCHANGES = r"(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"


def exchanges(text):
    """Each exchange between devices in a compiled program: its kind and the shapes it makes."""
    found = []
    for line in text.splitlines():
        match = re.search(rf"= (.*?) {EXCHANGES}(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"\w+\[([\d,]*)\]", match[1])
            found += [
                [match[2], [int(n) for n in shape.split(",") if n not in ("", "1")]]
                for shape in shapes
            ]
    return found


def gradient_program(model, images, labels, layout):
    """The text of the compiled gradient, as each device runs it."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def value(trainable, others, x, y):
        return loss(y, model.stateless_call(trainable, others, x, training=True)[0])

    if layout is not None:
        spread = [layout.get_data_layout(x.shape).backend_layout for x in (images, labels)]
        images, labels = map(jax.device_put, (images, labels), spread)
    variables = [
        [variable.value for variable in each]
        for each in (model.trainable_variables, model.non_trainable_variables)
    ]
    return jax.jit(jax.grad(value)).lower(*variables, images, labels).compile().as_text()


def run(layout):
    chosen = distribution(layout)
    keras.distribution.set_distribution(chosen)
    model = compiled(transformer(blocks=1))
    data = batches(BATCH, STEPS)
    text = gradient_program(model, *data[0], chosen)
    losses = [float(model.train_on_batch(*batch)[0]) for batch in data]
    return {
        "losses": losses,
        "exchanges": exchanges(text),
        "kernels": [list(w.shape) for w in model.weights if w.name == "kernel"],
    }


def gathered_on_purpose():
    """The same reading of a program that does gather a kernel."""
    mesh = distribution("units").device_mesh.backend_mesh
    whole, part = (NamedSharding(mesh, PartitionSpec(None, axis)) for axis in (None, "model"))
    kernel = jax.device_put(np.ones((64, 512), "float32"), part)
    text = jax.jit(lambda k: jnp.sin(k), out_shardings=whole).lower(kernel).compile().as_text()
    return {"exchanges": exchanges(text)}


def main():
    found = {layout: run(layout) for layout in LAYOUTS}
    found["gathered on purpose"] = gathered_on_purpose()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
