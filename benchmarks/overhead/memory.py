"""How much memory a training step takes: as the backend reports it, or the peak of a process.

`python -m benchmarks.overhead.memory CASE NETWORK` prints the peak of its own process, in bytes.
"""

import ctypes
import gc
import pathlib
import subprocess
import sys

from benchmarks.overhead import networks, steps
from benchmarks.shared import arguments, progress

ROOT = pathlib.Path(__file__).parents[2]


def measure_in_processes(name, names, taken):
    """Records of a case, a process for each normalization."""
    for each in progress.bar(names, desc=f"{name}, memory", unit="process"):
        yield {"case": name, "normalization": each, "peak": peak_bytes(name, each, taken)}


def measure_by_backend(name, case, names):
    """The same as the backend reports it, exact to the byte."""
    for each in progress.bar(names, desc=f"{name}, memory", unit="network"):
        yield {"case": name, "normalization": each, "peak": steps.of(case, each)["memory"]()}


def peak_bytes(name, normalization, taken):
    """How far a training step raises a process' memory, measured in one of its own."""
    words = ["-m", "benchmarks.overhead.memory", name, normalization, "--steps", str(taken)]
    run = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return int(run.stdout.split()[-1])


def print_peak(name, normalization, taken):
    """The peak of steps over what the process held before them, in bytes."""
    training = steps.of(networks.CASES[name], normalization)["training"]
    training()
    # What is left of that would hide what a step takes.
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident()
    # From here on, the kernel keeps the largest size of the process anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    for _ in range(taken):
        training()
    print(max(0, peak() - before))


def resident():
    return _status("VmRSS")


def peak():
    return _status("VmHWM")


def _status(field):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) * 1024


def add_steps(parser):
    """Adds --steps, the steps of a process whose peak is measured."""
    parser.add_argument("--steps", type=int, default=3, help="for a peak (%(default)s)")


def main(words=None):
    parser = arguments.parser("benchmarks.overhead.memory", __doc__)
    parser.add_argument("case")
    parser.add_argument("network")
    add_steps(parser)
    options = parser.parse_args(words)
    print_peak(options.case, options.network, options.steps)


if __name__ == "__main__":
    main()
