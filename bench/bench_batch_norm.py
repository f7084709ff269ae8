"""cases x passes x libraries: every entry is checked, and then, with --benchmark-only, timed.

Without it, each entry is run on the smallest case only, and nothing is timed.
"""

from collections.abc import Callable

import pytest

from bench.cases import CASES, PASSES, SMALLEST, make_problem
from bench.check import check
from bench.libraries import LIBRARIES, LeftOutError, load
from bench.machine import THREADS
from bench.summary import Measured


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make the product of the tables; a case's entries follow each other, so that its data is made once."""
    metafunc.parametrize("library", LIBRARIES)
    metafunc.parametrize("pass_name", PASSES)
    metafunc.parametrize("case_name", _selected(metafunc.config))


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
        f"{case_name} {pass_name.replace('_', ' ')}, {_megabytes(traffic)} to move",
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


def _selected(config: pytest.Config) -> list[str]:
    if config.option.benchmark_disable:
        return [str(SMALLEST)]
    every = config.getoption("all_cases", default=False)
    return [name for name, case in CASES.items() if every or case.quick]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
