"""A conditioned transformer on several devices with TensorFlow's `MirroredStrategy`.

    python examples/devices/on_tensorflow.py --simulated 2

`--simulated` makes that many devices of one CPU; without it, the GPUs of the machine are used. Each
device has all weights and a part of every batch. The numbers are those of one device, up to
rounding.
"""

import argparse
import os


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulated", type=int, metavar="DEVICES")
    parser.add_argument("--epochs", type=int, default=5)
    return parser.parse_args(words)


def strategy(simulated: int | None):
    """A `MirroredStrategy` over the GPUs, or over so many logical devices of the CPU."""
    import tensorflow as tf

    if not simulated:
        return tf.distribute.MirroredStrategy()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(simulated)]
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(simulated)])


def main(words: list[str] | None = None) -> None:
    options = parse(words)
    os.environ["KERAS_BACKEND"] = "tensorflow"
    chosen = strategy(options.simulated)

    from transformer import compiled, load_digits, transformer

    with chosen.scope():
        model = compiled(transformer())
    print(f"{chosen.num_replicas_in_sync} replicas")
    images, labels = load_digits()
    model.fit(images[:1536], labels[:1536], batch_size=64, epochs=options.epochs, verbose=2)


if __name__ == "__main__":
    main()
