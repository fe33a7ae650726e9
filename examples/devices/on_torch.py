"""A conditioned transformer in several processes with PyTorch's `DistributedDataParallel`.

    python examples/devices/on_torch.py --processes 2

One process for each GPU, or so many on the CPU. Each has all weights and a part of every batch;
gradients are averaged. The numbers are those of one process, up to rounding.
"""

import argparse
import os


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, help="by default, one for each GPU, or two")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--port", type=int, default=29513, help="where processes meet")
    return parser.parse_args(words)


def steps(rank: int, processes: int, port: int, batches: list) -> list[float]:
    """Trains one of the processes on its part of each batch; the mean losses over all parts."""
    import torch

    has_gpu = torch.cuda.is_available()
    device = f"cuda:{rank}" if has_gpu else "cpu"
    if has_gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if has_gpu else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=processes,
    )
    # The model refers to the group: what drops the last reference to that must not be Python's
    # own cleaning up, which holds a lock that the group's threads wait for.
    losses = train(rank, processes, device, batches)
    torch.distributed.destroy_process_group()
    return losses


def train(rank: int, processes: int, device: str, batches: list) -> list[float]:
    """The mean losses of steps in the group of processes that there is."""
    import torch

    from transformer import transformer

    with torch.device(device):
        model = torch.nn.parallel.DistributedDataParallel(transformer().to(device))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for images, labels in batches:
        images, labels = (torch.from_numpy(x[rank::processes]).to(device) for x in (images, labels))
        loss = torch.nn.functional.cross_entropy(model(images), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        torch.distributed.all_reduce(total)
        losses.append(float(total) / processes)
    return losses


def run(rank: int, processes: int, port: int, epochs: int) -> None:
    from transformer import batches

    os.environ["KERAS_BACKEND"] = "torch"
    an_epoch = batches(64, 24)
    losses = steps(rank, processes, port, an_epoch * epochs)
    for epoch in range(epochs if rank == 0 else 0):
        own = losses[epoch * len(an_epoch) : (epoch + 1) * len(an_epoch)]
        print(f"epoch {epoch + 1}: loss {sum(own) / len(own):.4f}", flush=True)


def main(words: list[str] | None = None) -> None:
    options = parse(words)
    os.environ["KERAS_BACKEND"] = "torch"
    import torch

    processes = options.processes or torch.cuda.device_count() or 2
    arguments = (processes, options.port, options.epochs)
    torch.multiprocessing.spawn(run, arguments, nprocs=processes)


if __name__ == "__main__":
    main()
