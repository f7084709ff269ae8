"""What synchronization costs: `NUMBA_NUM_THREADS=1 mpiexec -n 2 python -m mpi4py -m bench.synchronization`.

Every rank has a batch of its own, of float32. The table has the microseconds of a layer's training forward and
backward: with the moments and sums of all ranks' batches, and with those of the rank's own batch. Its last column is
the two exchanges alone. All ranks begin a round together, the slowest rank's time counts, and each number is the
shortest of many rounds. Give each rank its share of the cores: more threads than cores wait for one another.
"""

import argparse
from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from bnnumba import BatchNormalization
from bnnumba.mpi import LOG_AFTER, SyncBatchNormalization, link_of
from bnnumba.ranks import call_of, exchange, merged_moments

COMM = MPI.COMM_WORLD
CALLS = 10  # in a round


def least_microseconds(call: Callable[[], object], rounds: int) -> float:
    call()  # the first call may compile
    times = []
    for _ in range(rounds):
        COMM.Barrier()
        start = perf_counter()
        for _ in range(CALLS):
            call()
        times.append(COMM.allreduce(perf_counter() - start, MPI.MAX))
    return 1e6 * min(times) / CALLS


def training(layer: BatchNormalization, x: np.ndarray) -> Callable[[], object]:
    def step() -> None:
        layer(x, training=True)
        layer.backward(x)

    return step


def exchanging(features: int) -> Callable[[], object]:
    moments, sums, call = np.ones(1 + 4 * features), np.ones(2 * features), call_of("benchmark", 0)

    def step() -> None:
        with link_of(COMM).during(COMM, call, LOG_AFTER) as link:
            exchange(moments, merged_moments, call, link)
            exchange(sums, np.add, call, link)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.synchronization", description=__doc__.partition("\n")[0])
    parser.add_argument("--features", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--rows", type=int, default=128, help="of each rank's batch")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    if COMM.rank == 0:
        print(f"Microseconds of forward and backward, {COMM.size} ranks with {options.rows} rows each\n")
        print(f"{'features':>8}{'synchronized':>16}{'by itself':>16}{'exchanges':>16}")
    for features in options.features:
        x = np.random.default_rng(COMM.rank).standard_normal((options.rows, features), np.float32)
        calls = training(SyncBatchNormalization(), x), training(BatchNormalization(), x), exchanging(features)
        times = [least_microseconds(call, options.rounds) for call in calls]
        if COMM.rank == 0:
            print(f"{features:8}" + "".join(f"{time:16.1f}" for time in times), flush=True)


if __name__ == "__main__":
    main()
