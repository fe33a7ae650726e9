"""What conditioning costs: training steps and inference over those of the plain network.

All networks of a case run in one process, in rounds of an order of their own, after steps that warm
up; each ratio is that of two steps of one round, and what is told is their median with the
quartiles. The plain network runs twice, so that the spread of no difference at all is in the
table. Rivals run beside them: those of Keras over the plain Keras network, PyTorch's
parametrizations over a plain PyTorch network, Flax' over a plain Flax one. Memory is what the
compiled step plans for its temporaries on JAX, the peak of the tensors that it makes on PyTorch,
and the peak of a process of its own on TensorFlow.

Appends to benchmarks/results/overhead/BACKEND.jsonl, or BACKEND-gpu.jsonl where the backend
computes on a GPU, a line for each case and normalization; what is there already is not measured
again. From a GPU alone, lines hold milliseconds too. report_overhead.py writes tables and pictures
from it.
"""

import argparse
import ctypes
import gc
import importlib.util
import pathlib
import random
import statistics
import subprocess
import sys
import time

import environment
import lines
import steps
import subjects

RESULTS = pathlib.Path(__file__).parent / "results" / "overhead"
AGAIN = "plain, again"
# A network that takes longer than this for a step is not timed in rounds.
LONGEST_STEP = 6.0
# The first step may take so many times as long, since TensorFlow compiles it then.
WITH_COMPILING = 5.0
# One that takes so many times as long as the plain one is timed in rounds apart from the others.
SLOW = 2.5


def normalizations(case, backend):
    """What runs beside the plain network in a case, in the order of its rounds."""
    twins = ()
    has_twins = backend == "torch" or importlib.util.find_spec("flax") is not None
    if case.twin is not None and backend in subjects.TWINS and has_twins:
        twins = (subjects.TWIN_PLAIN[backend], *subjects.TWINS[backend])
    return (*subjects.OURS, *subjects.RIVALS, AGAIN, *twins)


def baseline(normalization):
    """The network that a ratio is over."""
    if normalization.startswith("PyTorch"):
        return subjects.TORCH_PLAIN
    return subjects.FLAX_PLAIN if normalization.startswith("Flax") else subjects.PLAIN


def subject(case, normalization):
    """`{"training": step, "inference": call}`, and on JAX and PyTorch `"memory"`, of a network."""
    if normalization.startswith("PyTorch"):
        return steps.of_torch(*subjects.torch_twin(case, normalization), case.batch)
    if normalization.startswith("Flax"):
        return steps.of_flax(*subjects.flax_twin(case, normalization), case.batch)
    model = case.model(subjects.PLAIN if normalization == AGAIN else normalization)
    return steps.of_keras(model, case.batch)


def seconds_of(function):
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
    for _ in environment.bar(range(rounds), desc=desc, unit="round"):
        shuffle(order)  # What one leaves in caches is another one's gain, but not always the same.
        for name in order:
            seconds[name].append(seconds_of(functions[name]))
    return seconds


def measure(name, case, names, budget, most):
    """Records of a case, a line for each normalization."""
    made, first = {}, {}
    for each in (subjects.PLAIN, *names):
        made[each] = subject(case, each)
        first[each] = seconds_of(made[each]["training"])
        if first[each] < WITH_COMPILING * LONGEST_STEP:
            first[each] = seconds_of(made[each]["training"])
    too_long = {each for each, seconds in first.items() if seconds > LONGEST_STEP}
    slow = {each for each in names if first[each] > SLOW * first[baseline(each)]}
    quick = set(names) - slow
    on_gpu = environment.gpu() is not None
    measured = {}
    # Slow ones apart, so that the others, whose differences are small, get more rounds.
    for group in (quick, slow - too_long):
        beside = {*group, *map(baseline, group)} - too_long
        functions = {each: own for each, own in made.items() if each in beside}
        for kind in ("training", "inference") if group and functions else ():
            own = {each: kinds[kind] for each, kinds in functions.items()}
            seconds = time_in_turn(own, budget, most, f"{name}, {kind}")
            measured.update({(each, kind): seconds for each in group})
    for each in names:
        record = {"case": name, "normalization": each, "baseline": baseline(each)}
        if each == record["baseline"]:
            continue
        if {each, record["baseline"]} & too_long:
            yield {**record, "status": f"a step takes over {LONGEST_STEP:g} s"}
            continue
        for kind in ("training", "inference"):
            seconds = measured[each, kind]
            pair = seconds[each], seconds[record["baseline"]]
            record[kind] = [float(f"{own / plain:.4g}") for own, plain in zip(*pair, strict=True)]
            if on_gpu:
                record[f"{kind}_ms"], record[f"{kind}_ms_plain"] = (
                    float(f"{1e3 * statistics.median(each):.4g}") for each in pair
                )
        yield {**record, "status": "measured"}


def peak_bytes(name, normalization, taken):
    """How far a training step raises a process' memory, measured in one of its own."""
    words = ["--peak", name, "--networks", normalization, "--steps", str(taken)]
    run = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=True
    )
    return int(run.stdout.split()[-1])


def print_peak(name, normalization, taken):
    """The peak of steps over what the process held before them, in bytes."""
    training = subject(subjects.CASES[name], normalization)["training"]
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


def parse(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(subjects.CASES), metavar="CASE")
    parser.add_argument("--networks", nargs="+", help="which to time beside the plain one")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a case (%(default)s)")
    parser.add_argument("--most", type=int, default=200, help="rounds at most (%(default)s)")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--memory", action="store_true", help="measure peaks of memory instead")
    parser.add_argument("--steps", type=int, default=3, help="for a peak (%(default)s)")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    if options.peak:
        print_peak(options.peak, options.networks[0], options.steps)
        return
    backend = environment.environment()["backend"]
    conditions = environment.environment(*(["flax"] if backend == "jax" else []))
    gpu = environment.gpu()
    if options.memory and gpu is not None:
        raise ValueError(
            "Expected a backend that computes on the CPU, whose memory alone is told. Received: "
            f"--memory with {backend} on {gpu}."
        )
    path = options.results / file_name(backend, on_gpu=gpu is not None, memory=options.memory)
    known = {(record["case"], record["normalization"]) for record in lines.read(path)}
    for name in options.cases:
        case = subjects.CASES[name]
        names = [
            each
            for each in options.networks or normalizations(case, backend)
            if (name, each) not in known
        ]
        if options.memory:
            wanted = [subjects.PLAIN, *names]
            if backend == "tensorflow":
                measured = measure_memory(name, wanted, options.steps)
            else:
                measured = told_memory(name, case, wanted)
        else:
            wanted = dict.fromkeys(
                (*(baseline(each) for each in names if each != subjects.PLAIN), *names)
            )
            wanted.pop(subjects.PLAIN, None)
            measured = measure(name, case, list(wanted), options.budget, options.most)
        for record in measured if names else ():
            lines.append(path, {**record, **conditions})
            tell(record)


def file_name(backend, on_gpu=False, memory=False):
    """Where the lines of a backend are."""
    return f"{backend}{'-gpu' * on_gpu}{'-memory' * memory}.jsonl"


def measure_memory(name, names, taken):
    for each in environment.bar(names, desc=f"{name}, memory", unit="process"):
        yield {"case": name, "normalization": each, "peak": peak_bytes(name, each, taken)}


def told_memory(name, case, names):
    """The same as the backend tells it, exact to the byte."""
    for each in environment.bar(names, desc=f"{name}, memory", unit="network"):
        yield {"case": name, "normalization": each, "peak": subject(case, each)["memory"]()}


def tell(record):
    """A line for whoever waits."""
    start = f"{record['case'][:34]:34} {record['normalization']:26}"
    if "peak" in record:
        print(f"{start} {record['peak'] / 2**20:8.1f} MiB", flush=True)
    elif record["status"] != "measured":
        print(f"{start} {record['status']}", flush=True)
    else:
        found = (statistics.quantiles(record[kind], n=4) for kind in ("training", "inference"))
        print(start, *(f"{q[1]:6.3f} ({q[0]:.3f}–{q[2]:.3f})" for q in found), flush=True)


if __name__ == "__main__":
    main()
