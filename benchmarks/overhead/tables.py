"""The tables of the page on overhead, from the records of its programs."""

import math
import statistics

from benchmarks.overhead import networks
from benchmarks.shared import markdown, timing

METHOD = "row_equilibration"
# The second table is of what takes products of matrices or more passes over them.
OTHERS = (*networks.OURS[1:], *networks.VARIANTS, "PyTorch orthogonal")
TWINS = tuple(name for names in networks.TWINS.values() for name in names if name not in OTHERS)
# The first table is of these.
BASELINES = (networks.AGAIN, METHOD, *networks.BASELINES, *TWINS)


def cell(record, kind):
    """Median and quartiles, or why there are none."""
    if record is None:
        return ""
    if record["status"] != "measured":
        return "–"
    low, middle, high = timing.quartiles(record[kind])
    return f"{middle:.3f} ({low:.2f}–{high:.2f})"


def ratios(records, kind, names):
    """A row for each case, a column for each of the normalizations that were measured.

    From a GPU, the plain network's milliseconds are the first.
    """
    found = {(record["case"], record["normalization"]): record for record in records}
    names = [name for name in names if any(key[1] == name for key in found)]
    plain = {
        record["case"]: f"{record[f'{kind}_ms_plain']:.3g}"
        for record in records
        if record["baseline"] == networks.PLAIN and f"{kind}_ms_plain" in record
    }
    rows = [
        [
            case,
            *([plain.get(case, "")] if plain else []),
            *(cell(found.get((case, name)), kind) for name in names),
        ]
        for case in cases_of(records)
    ]
    headers = ["", *(["plain, ms"] if plain else []), *names]
    return markdown.table(rows, headers)


def cases_of(records):
    measured = {record["case"] for record in records}
    return [case for case in networks.CASES if case in measured]


def dearer_than_baselines(records, kind):
    """Where row equilibration takes longer than a baseline, beyond the quartiles of both."""
    found = {(record["case"], record["normalization"]): record for record in records}
    baselines = (networks.BATCH, networks.SPECTRAL, "PyTorch weight_norm")
    told = []
    for case in cases_of(records):
        for baseline in baselines:
            pair = [found.get((case, name)) for name in (METHOD, baseline)]
            if None in pair or any(record["status"] != "measured" for record in pair):
                continue
            own, other = (timing.quartiles(record[kind]) for record in pair)
            if own[0] > other[2]:
                told.append(f"{case}: {baseline} ({own[1]:.2f} against {other[1]:.2f})")
    if not told:
        return (
            f"In no case does {METHOD} take longer than {', '.join(baselines[:2])} or the other "
            "library's weight_norm by more than the quartiles of both."
        )
    return f"{METHOD} takes longer, by more than the quartiles of both, than: {'; '.join(told)}."


def memory(records):
    """What a step takes on top of the plain network's, in MiB."""
    peaks = {(record["case"], record["normalization"]): record["peak"] for record in records}
    shown = {name for _, name in peaks}
    names = [name for name in (*BASELINES, *OTHERS) if name in shown]
    rows = []
    for case in cases_of(records):
        plain = peaks.get((case, networks.PLAIN))
        if plain is None:
            continue
        over = {
            name: (
                peaks[case, name] - peaks.get((case, networks.plain_of(name)), plain)
            ) / 2**20
            for name in names
            if (case, name) in peaks
        }  # fmt: skip
        cells = (f"{over[name]:+.1f}" if name in over else "" for name in names)
        rows.append([case, kernel_size(case), f"{plain / 2**20:.0f}", *cells])
    headers = ["MiB", "a kernel", "plain", *names]
    return markdown.table(rows, headers)


def kernel_size(case):
    """The largest kernel of a case in MiB."""
    model = networks.CASES[case].model(networks.PLAIN)
    kernels = [weight for weight in model.trainable_weights if "kernel" in weight.name]
    entries = max(math.prod(kernel.shape) for kernel in kernels)
    return f"{4 * entries / 2**20:.2g}"


def products(records):
    rows = []
    for record in records:
        low, middle, high = timing.quartiles(record["over_products"])
        square, wide = (sum(record["products"][kind]) for kind in ("square", "far wider"))
        rows.append(
            [
                record["backend"],
                record["method"],
                f"{square}, {wide}",
                f"{statistics.median(record['over_plain']):.2f}",
                f"{middle:.2f} ({low:.2f}–{high:.2f})",
            ]
        )
    headers = ["backend", "method", "products (square, 1:4)", "step over plain", "over products"]
    return markdown.table(rows, headers)
