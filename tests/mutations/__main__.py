"""Mutants of conditioners, kernels and linear algebra, and why those that survive change nothing.

python -m tests.mutations

Runs mutmut as `pyproject.toml` says. Compares the mutants that no test kills with
`explained.toml`, writes the figures to benchmarks/results/mutations.json, and fails if one has no
explanation.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tomllib

from benchmarks.shared.environment import environment
from benchmarks.shared.records import RESULTS

EXPLAINED = pathlib.Path(__file__).with_name("explained.toml")
PACKAGES = ("conditioners", "kernels", "linalg")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument("--only-compare", action="store_true", help="with the last run's mutants")
    options = parser.parse_args()
    if not options.only_compare:
        mutmut("run", "--max-children", str(options.processes), output=None)
    status = dict(re.findall(r"^\s*(\S+): (.+)$", mutmut("results", "--all", "true"), re.MULTILINE))
    status = {name: result for name, result in status.items() if is_chosen(name)}
    left = {name: key_of(name) for name, result in status.items() if result != "killed"}
    groups = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["group"]
    explained = {key for group in groups for key in group["mutants"]}
    unknown = sorted(set(left.values()) - explained)
    gone = sorted(explained - set(left.values()))
    counts = collections.Counter(status.values())
    figures = {
        "mutants": len(status),
        **counts,
        "survivors that are explained": sum(key in explained for key in left.values()),
    }
    record = {**environment("mutmut", "numpy"), "figures": figures}
    path = RESULTS / "mutations.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{name}: {number}" for name, number in figures.items()))
    for title, keys in (("Not explained", unknown), ("Explained, but killed", gone)):
        print(*(f"{title}: {key}" for key in keys), sep="\n")
    sys.exit(bool(unknown))


def mutmut(*arguments, output=subprocess.PIPE):
    command = [sys.executable, "-m", "mutmut", *arguments]
    return subprocess.run(command, stdout=output, text=True, check=output is not None).stdout


def is_chosen(name):
    return name.split(".")[1] in PACKAGES


def key_of(name):
    """The function and the changed line, which stay when mutants get other numbers."""
    lines = mutmut("show", name).splitlines()
    added = [line[1:].strip() for line in lines if re.match(r"\+(?!\+\+)", line)]
    function = re.sub(r"ǁ", ".", re.sub(r"\.x_?ǁ?", ".", name.partition("__mutmut_")[0]))
    return f"{function.removeprefix('keras_wcond.')}: {' '.join(added)}"


if __name__ == "__main__":
    main()
