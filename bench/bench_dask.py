"""bnnumba.dask beside Dask's own mean and var, on 2 GB that two worker processes hold; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only. Each process has one thread, and the memory that
Dask gives it. `peak_bytes` in the extra information is the memory that the processes take beyond the data.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import dask
import dask.array
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster, wait

import bnnumba.dask
from bench.libraries import OURS
from bench.summary import Measured

SHAPE, SMALL = (500_000, 1000), (400, 10)
CHUNKS = 40  # of 50 MB
NUMBERS = count()

STATISTICS = {
    OURS: lambda x: bnnumba.dask.moments(x)[:2],
    "Dask": lambda x: dask.compute(x.mean(axis=0), x.var(axis=0)),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    where = {"dashboard_address": ":0", "local_directory": tmp_path_factory.mktemp("workers")}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, **where) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def x(client: Client, request: pytest.FixtureRequest) -> Any:
    shape = SMALL if request.config.option.benchmark_disable else SHAPE
    normal = dask.array.random.default_rng(0).standard_normal(shape, chunks=(shape[0] // CHUNKS, -1))
    data = client.persist((normal * 3 + 5).astype(np.float32))
    wait(data)
    return data


@pytest.fixture(scope="module")
def right(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, from float64 sums."""
    return dask.compute(x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64))


def anew(x: Any) -> Any:
    """The same data under a new name: the scheduler would reuse the results of a name that it knows."""
    return x.map_blocks(lambda chunk: chunk, name=f"run-{next(NUMBERS)}", dtype=x.dtype, meta=x._meta)


def peak_bytes(client: Client, run: Callable[[], object]) -> int:
    """The most memory that the workers take in addition while something runs, sampled every few milliseconds."""
    workers = [psutil.Process(pid) for pid in client.run(os.getpid).values()]

    def held() -> int:
        return sum(worker.memory_info().rss for worker in workers)

    before = most = held()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        while not running.done():
            most = max(most, held())
            time.sleep(0.003)
    running.result()
    return most - before


@pytest.mark.parametrize("name", STATISTICS)
def test_dask(
    benchmark: Callable,
    name: str,
    client: Client,
    x: Any,
    right: tuple[np.ndarray, np.ndarray],
    measurements: list[Measured],
) -> None:
    def run() -> object:
        return STATISTICS[name](anew(x))

    for found, expected in zip(run(), right, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3)

    benchmark.name, benchmark.group = name, f"mean and variance {x.shape}, two worker processes"
    benchmark.extra_info.update(least_bytes=x.nbytes, peak_bytes=peak_bytes(client, run))
    benchmark(run)
    if benchmark.enabled:
        measurements.append(Measured("two processes", "mean and variance", name, benchmark.stats.stats.min))
