"""What synchronization costs under torch.distributed: `python -m bench.synchronization_torch --ranks 2`.

It starts the ranks itself, on this machine, with gloo and one thread each. Every rank has a batch of its own, of
float32. The table has the microseconds of a layer's training forward and backward: with the statistics of all ranks'
batches; with those of the rank's own batch; with these, and after each of the two passes a call of all_reduce with as
many bytes as an exchange has; and two such calls alone. The last two columns are what synchronization takes over the
layer by itself, divided by what all_reduce takes between the passes, and alone. All ranks begin a round together, the
slowest rank's time counts, and each number is the shortest of many rounds, of which the calls that are compared take
turns.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import distributed, multiprocessing, nn

from bnnumba.torch import BatchNorm1d, SyncBatchNorm

CALLS = 10  # in a round


def microseconds(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 2):  # the first rounds may compile
        for call, found in zip(calls, times, strict=True):
            distributed.barrier()
            start = perf_counter()
            for _ in range(CALLS):
                call()
            took = torch.tensor([perf_counter() - start], dtype=torch.float64)
            distributed.all_reduce(took, distributed.ReduceOp.MAX)
            if number > 1:
                found.append(1e6 * took.item() / CALLS)
    return [min(found) for found in times]


def training(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: layer(x).backward(x)


def reducing(features: int) -> Callable[[], object]:
    forward, backward = messages(features)

    def both() -> None:
        distributed.all_reduce(forward)
        distributed.all_reduce(backward)

    return both


def training_and_reducing(layer: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    forward, backward = messages(x.shape[1])

    def both() -> None:
        y = layer(x)
        distributed.all_reduce(forward)
        y.backward(x)
        distributed.all_reduce(backward)

    return both


def messages(features: int) -> list[torch.Tensor]:
    """Of as many bytes as an exchange forward, and one backward, sends."""
    return [torch.zeros(size, dtype=torch.float64) for size in (4 + 4 * features, 2 + 2 * features)]


def rank_of_many(rank: int, ranks: int, meeting: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    if rank == 0:
        print(f"Microseconds of forward and backward, {ranks} ranks with {options.rows} rows each\n")
        heads = "synchronized", "by itself", "and all_reduce", "all_reduce", "ratio between", "ratio alone"
        print(f"{'features':>8}" + "".join(f"{head:>16}" for head in heads))
    for features in options.features:
        x = torch.randn(options.rows, features, generator=torch.Generator().manual_seed(rank), requires_grad=True)
        layer = BatchNorm1d(features)
        calls = [training(each, x) for each in (SyncBatchNorm(features), layer)]
        times = microseconds([*calls, training_and_reducing(layer, x), reducing(features)], options.rounds)
        together, apart, between, alone = times
        if rank == 0:
            ratios = (together - apart) / (between - apart), (together - apart) / alone
            print(f"{features:8}" + "".join(f"{each:16.1f}" for each in times) + "".join(f"{r:16.2f}" for r in ratios))
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.synchronization_torch", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--features", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rows", type=int, default=128, help="of each rank's batch")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        multiprocessing.spawn(rank_of_many, (options.ranks, meeting, options), options.ranks)


if __name__ == "__main__":
    main()
