"""Run by the test in a process of its own: losses with and without two replicas, as JSON."""

import json
import sys

import keras
import numpy as np

from on_tensorflow import strategy
from transformer import batches, compiled, transformer


class Losses(keras.callbacks.Callback):
    """The mean of the losses so far, after each step."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def train(model):
    images, labels = (np.concatenate(parts) for parts in zip(*batches(24, 10), strict=True))
    losses = Losses()
    model.fit(images, labels, batch_size=24, shuffle=False, verbose=0, callbacks=[losses])
    return losses.found


def main():
    chosen = strategy(simulated=2)
    with chosen.scope():
        replicated = compiled(transformer(blocks=1))
    found = {"replicas": chosen.num_replicas_in_sync, "many": train(replicated)}
    found["single"] = train(compiled(transformer(blocks=1)))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
