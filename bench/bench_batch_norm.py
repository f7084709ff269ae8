"""cases x passes x libraries: every entry is checked and, with --benchmark-only, timed.

Without that option, each entry runs on the smallest case only, and nothing is timed.
"""

from collections.abc import Callable

import pytest

from bench.cases import CASES, make_problem, selected
from bench.check import check
from bench.libraries import PEERS
from bench.library import LeftOutError, load
from bench.machine import THREADS
from bench.passes import PASSES
from bench.summary import Measured, words


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make the product of the tables. The entries of a case follow each other, so that its data is made once."""
    metafunc.parametrize("library", PEERS)
    metafunc.parametrize("pass_name", PASSES)
    option = metafunc.config.option
    metafunc.parametrize("case_name", selected(not option.benchmark_disable, option.all_cases))


def test_batch_norm(
    benchmark: Callable, case_name: str, pass_name: str, library: str, measurements: list[Measured]
) -> None:
    case = CASES[case_name]
    try:
        loaded = load(library, case, pass_name)
    except LeftOutError as reason:
        pytest.skip(str(reason))
    entry = loaded(make_problem(case))
    run = getattr(entry, pass_name)()
    check(case, pass_name, entry.results(pass_name, run()))

    traffic = PASSES[pass_name].traffic * case.nbytes
    benchmark.name, benchmark.group = (
        library,
        f"{case_name} {words(pass_name)}, {_megabytes(traffic)} to move",
    )
    benchmark.extra_info.update(
        shape=case.shape,
        feature_axis=case.feature_axis,
        layout=case.kind,
        least_bytes=traffic,
        threads=THREADS,
        version=loaded.version,
    )
    benchmark(run)
    if benchmark.enabled:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["GB/s"] = traffic / seconds / 1e9
        measurements.append(Measured(case_name, pass_name, library, seconds))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
