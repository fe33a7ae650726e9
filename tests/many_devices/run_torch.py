"""Run by the test in a process of its own: losses of one and of two processes, as JSON."""

import faulthandler
import json
import pathlib
import socket
import sys
import tempfile

import torch

from on_torch import steps
from transformer import batches


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# A process that waits for another for ever says where, and ends.
SECONDS = 300


def run(rank, processes, port, folder):
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    losses = steps(rank, processes, port, batches(24, 10))
    (pathlib.Path(folder) / f"{processes}-{rank}.json").write_text(json.dumps(losses))


def main():
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            torch.multiprocessing.spawn(run, (processes, free_port(), folder), nprocs=processes)
        paths = pathlib.Path(folder).glob("*.json")
        json.dump({path.stem: json.loads(path.read_text()) for path in paths}, sys.stdout)


if __name__ == "__main__":
    main()
