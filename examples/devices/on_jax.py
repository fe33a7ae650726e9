"""A conditioned transformer over several devices with JAX: data or model parallel.

    python examples/devices/on_jax.py --layout transformer --simulated 8

`--simulated` makes that many devices of one CPU, to try layouts out; without it, the accelerators
of the machine are used. The numbers are those of one device, up to rounding.
"""

import argparse
import os

LAYOUTS = ("single", "data", "units", "inputs", "transformer")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layout", choices=LAYOUTS, default="transformer")
    parser.add_argument("--simulated", type=int, metavar="DEVICES")
    parser.add_argument("--epochs", type=int, default=5)
    return parser.parse_args(words)


def distribution(layout: str):
    """The `keras.distribution` of a layout over all devices, or None for a single one."""
    import keras

    devices = keras.distribution.list_devices()
    if layout == "single":
        return None
    if layout == "data":
        return keras.distribution.DataParallel(devices=devices)
    groups = 2 if len(devices) % 2 == 0 else 1
    mesh = keras.distribution.DeviceMesh(
        (groups, len(devices) // groups), ("batch", "model"), devices
    )
    layouts = keras.distribution.LayoutMap(mesh)
    for pattern, axes in PATTERNS[layout].items():
        layouts[pattern] = axes
    return keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


PATTERNS = {
    # Along output units: each device computes the norms of its own rows. No exchange is needed.
    "units": {
        "(expand|contract).*kernel": (None, "model"),
        "(expand|contract).*bias": ("model",),
    },
    # Along inputs: norms are sums over devices, one number for each unit.
    "inputs": {"(expand|contract).*kernel": ("model", None)},
    # As transformers are split: what comes first along units, what follows along inputs, so
    # that nothing between the two is exchanged.
    "transformer": {
        "attention.*(query|key|value).*kernel": (None, "model", None),
        "attention.*(query|key|value).*bias": ("model", None),
        "attention.*attention_output.*kernel": ("model", None, None),
        "expand.*kernel": (None, "model"),
        "expand.*bias": ("model",),
        "contract.*kernel": ("model", None),
    },
}


def main(words: list[str] | None = None) -> None:
    options = parse(words)
    if options.simulated:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.simulated}"
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    from transformer import compiled, load_digits, transformer

    keras.distribution.set_distribution(distribution(options.layout))
    model = compiled(transformer())
    for weight in model.trainable_weights:
        print(
            f"{weight.path:44} {tuple(weight.shape)!s:16} {weight.value.sharding.spec}"
            if options.layout != "single"
            else weight.path
        )
    images, labels = load_digits()
    model.fit(images[:1536], labels[:1536], batch_size=64, epochs=options.epochs, verbose=2)


if __name__ == "__main__":
    main()
