"""Half precision: passes x dtypes, beside float32 and beside PyTorch's bfloat16; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only.
"""

from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from bench.cases import CASES, make_problem, selected
from bench.check import check
from bench.libraries import TORCH_BFLOAT16, LeftOutError, load
from bench.passes import PASSES
from bench.summary import OURS, Measured


class Entry(NamedTuple):
    """What is timed, with data of a dtype, and what it is compared with: the rows of the summary, and its column."""

    library: str
    dtype: type
    rows: tuple[str, ...]
    column: str


ENTRIES = {
    "bnnumba float32": Entry(OURS, np.float32, ("float16", "bfloat16"), "float32"),
    "bnnumba float16": Entry(OURS, np.float16, ("float16",), OURS),
    "bnnumba bfloat16": Entry(OURS, ml_dtypes.bfloat16, ("bfloat16",), OURS),
    TORCH_BFLOAT16: Entry(TORCH_BFLOAT16, ml_dtypes.bfloat16, ("bfloat16",), "torch"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", ENTRIES)
    metafunc.parametrize("pass_name", ("inference", "training_forward", "backward", "frozen_backward"))
    option = metafunc.config.option
    metafunc.parametrize("case_name", selected(not option.benchmark_disable, option.all_cases))


def test_half(benchmark: Callable, case_name: str, pass_name: str, name: str, measurements: list[Measured]) -> None:
    case, entry = CASES[case_name], ENTRIES[name]
    try:
        loaded = load(entry.library, case, pass_name)
    except LeftOutError as reason:
        pytest.skip(str(reason))
    problem = make_problem(case)
    library = loaded(problem._replace(x=problem.x.astype(entry.dtype), dy=problem.dy.astype(entry.dtype)))
    run = getattr(library, pass_name)()
    check(case, pass_name, library.results(pass_name, run()), float(ml_dtypes.finfo(entry.dtype).eps))

    benchmark.name, benchmark.group = name, f"{case_name} {pass_name.replace('_', ' ')}, half precision"
    benchmark.extra_info.update(
        least_bytes=PASSES[pass_name].traffic * case.nbytes * np.dtype(entry.dtype).itemsize // 4
    )
    benchmark(run)
    if benchmark.enabled:
        for dtype in entry.rows:
            row = f"{pass_name} {dtype}"
            measurements.append(Measured(case_name, row, entry.column, benchmark.stats.stats.min))
