"""Half precision: passes x libraries x dtypes, and our float32 beside them; checked, and then timed.

`half` in the table of libraries says which library takes which dtype. As in `bench_batch_norm`, nothing is timed
without --benchmark-only.
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from bench.cases import CASES, make_problem, selected
from bench.check import check
from bench.libraries import OURS, PEERS
from bench.library import LeftOutError, load
from bench.passes import PASSES
from bench.summary import Measured, words

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
ENTRIES = {
    f"{library} {dtype}": (library, dtype)
    for library, peer in PEERS.items()
    for dtype in (("float32",) if library == OURS else ()) + peer.half
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", ENTRIES)
    metafunc.parametrize("pass_name", ("inference", "training_forward", "backward", "frozen_backward"))
    option = metafunc.config.option
    metafunc.parametrize("case_name", selected(not option.benchmark_disable, option.all_cases))


def test_half(benchmark: Callable, case_name: str, pass_name: str, name: str, measurements: list[Measured]) -> None:
    case, (library, dtype) = CASES[case_name], ENTRIES[name]
    try:
        loaded = load(library, case, pass_name)
    except LeftOutError as reason:
        pytest.skip(str(reason))
    problem, of_dtype = make_problem(case), DTYPES[dtype]
    entry = loaded(problem._replace(x=problem.x.astype(of_dtype), dy=problem.dy.astype(of_dtype)))
    run = getattr(entry, pass_name)()
    check(case, pass_name, entry.results(pass_name, run()), float(ml_dtypes.finfo(of_dtype).eps))

    benchmark.name, benchmark.group = name, f"{case_name} {words(pass_name)}, half precision"
    size = case.nbytes * np.dtype(of_dtype).itemsize // 4
    benchmark.extra_info.update(least_bytes=PASSES[pass_name].traffic * size)
    benchmark(run)
    if benchmark.enabled:
        for row_dtype, column in summarized(library, dtype):
            row = f"{pass_name} {row_dtype}"
            measurements.append(Measured(case_name, row, column, benchmark.stats.stats.min))


def summarized(library: str, dtype: str) -> list[tuple[str, str]]:
    """An entry's places in the summary: a dtype's row and a column. Our float32 is a column beside each half dtype."""
    if dtype == "float32":
        return [(half, dtype) for half in PEERS[OURS].half]
    return [(dtype, library)]
