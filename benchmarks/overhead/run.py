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
again. From a GPU alone, lines hold milliseconds too. `python -m benchmarks.overhead.report` writes
tables and pictures from it.
"""

import statistics

from benchmarks.overhead import memory, networks, steps
from benchmarks.shared import arguments, environment, records, timing

# A network that takes longer than this for a step is not timed in rounds.
LONGEST_STEP = 6.0
# The first step may take so many times as long, since TensorFlow compiles it then.
WITH_COMPILING = 5.0
# One that takes so many times as long as the plain one is timed in rounds apart from the others.
SLOW = 2.5


def measure(name, case, names, budget, most):
    """Records of a case, a line for each normalization."""
    made, first = {}, {}
    for each in (networks.PLAIN, *names):
        made[each] = steps.of(case, each)
        first[each] = timing.seconds_of(made[each]["training"])
        if first[each] < WITH_COMPILING * LONGEST_STEP:
            first[each] = timing.seconds_of(made[each]["training"])
    too_long = {each for each, seconds in first.items() if seconds > LONGEST_STEP}
    slow = {each for each in names if first[each] > SLOW * first[networks.plain_of(each)]}
    quick = set(names) - slow
    on_gpu = environment.gpu() is not None
    measured = {}
    # Slow ones apart, so that the others, whose differences are small, get more rounds.
    for group in (quick, slow - too_long):
        beside = {*group, *map(networks.plain_of, group)} - too_long
        functions = {each: own for each, own in made.items() if each in beside}
        for kind in ("training", "inference") if group and functions else ():
            own = {each: kinds[kind] for each, kinds in functions.items()}
            seconds = timing.time_in_turn(own, budget, most, f"{name}, {kind}")
            measured.update({(each, kind): seconds for each in group})
    for each in names:
        record = {"case": name, "normalization": each, "baseline": networks.plain_of(each)}
        if each == record["baseline"]:
            continue
        if {each, record["baseline"]} & too_long:
            yield {**record, "status": f"a step takes over {LONGEST_STEP:g} s"}
            continue
        for kind in ("training", "inference"):
            seconds = measured[each, kind]
            pair = seconds[each], seconds[record["baseline"]]
            record[kind] = timing.ratios(*pair)
            if on_gpu:
                record[f"{kind}_ms"], record[f"{kind}_ms_plain"] = (
                    float(f"{1e3 * statistics.median(each):.4g}") for each in pair
                )
        yield {**record, "status": "measured"}


def parse(words=None):
    parser = arguments.parser("benchmarks.overhead.run", __doc__)
    parser.add_argument("--cases", nargs="+", default=list(networks.CASES), metavar="CASE")
    parser.add_argument("--networks", nargs="+", help="which to time beside the plain one")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a case (%(default)s)")
    parser.add_argument("--most", type=int, default=200, help="rounds at most (%(default)s)")
    arguments.add_results(parser, "overhead")
    parser.add_argument("--memory", action="store_true", help="measure peaks of memory instead")
    memory.add_steps(parser)
    return parser.parse_args(words)


def main(words=None):
    options = parse(words)
    backend = environment.environment()["backend"]
    conditions = environment.environment(*(["flax"] if backend == "jax" else []))
    gpu = environment.gpu()
    if options.memory and gpu is not None:
        raise ValueError(
            "Expected a backend that computes on the CPU, whose memory alone is told. Received: "
            f"--memory with {backend} on {gpu}."
        )
    path = options.results / file_name(backend, on_gpu=gpu is not None, memory=options.memory)
    known = {(record["case"], record["normalization"]) for record in records.read(path)}
    for name in options.cases:
        case = networks.CASES[name]
        names = [
            each
            for each in options.networks or networks.normalizations(case, backend)
            if (name, each) not in known
        ]
        if options.memory:
            wanted = [networks.PLAIN, *names]
            if backend == "tensorflow":
                measured = memory.measure_in_processes(name, wanted, options.steps)
            else:
                measured = memory.measure_by_backend(name, case, wanted)
        else:
            wanted = dict.fromkeys(
                (*(networks.plain_of(each) for each in names if each != networks.PLAIN), *names)
            )
            wanted.pop(networks.PLAIN, None)
            measured = measure(name, case, list(wanted), options.budget, options.most)
        for record in measured if names else ():
            records.append(path, {**record, **conditions})
            tell(record)


def file_name(backend, on_gpu=False, memory=False):
    """Where the lines of a backend are."""
    return f"{backend}{'-gpu' * on_gpu}{'-memory' * memory}.jsonl"


def tell(record):
    """A line for whoever waits."""
    start = f"{record['case'][:34]:34} {record['normalization']:26}"
    if "peak" in record:
        print(f"{start} {record['peak'] / 2**20:8.1f} MiB", flush=True)
    elif record["status"] != "measured":
        print(f"{start} {record['status']}", flush=True)
    else:
        found = (timing.quartiles(record[kind]) for kind in ("training", "inference"))
        print(start, *(f"{q[1]:6.3f} ({q[0]:.3f}–{q[2]:.3f})" for q in found), flush=True)


if __name__ == "__main__":
    main()
