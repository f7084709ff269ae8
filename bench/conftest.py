"""How pytest runs the benchmarks: options, defaults, and the summary at the end."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.machine import THREADS, recycle_memory
from bench.summary import Measured, lines

_MEASURED = pytest.StashKey[dict[str, list[Measured]]]()
_NONE_CHOSEN = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmark")
    group.addoption(
        "--all-cases", action="store_true", help="Run every case of bench/cases.py, not only the quick ones."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Set the options of pytest-benchmark that the user left open; it reads them afterwards."""
    option = config.option
    option.benchmark_disable = not (option.benchmark_only or option.benchmark_enable)
    if option.benchmark_columns is None:
        option.benchmark_columns = ["min", "median", "rounds"]
    if not _given(config, "--benchmark-max-time"):
        option.benchmark_max_time = "0.2"  # seconds per entry: the quick cases then take about two minutes
    config.stash[_MEASURED] = {}
    if not option.benchmark_disable:
        recycle_memory()


@pytest.fixture
def measurements(request: pytest.FixtureRequest) -> list[Measured]:
    """The measurements of this file. Each benchmark adds its own; the summary has a table for each file."""
    return request.config.stash[_MEASURED].setdefault(request.module.__name__, [])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what --benchmark-only would skip. What is then skipped was meant to run and could not."""
    if config.option.benchmark_only:
        others = [item for item in items if not _is_benchmark(item)]
        items[:] = filter(_is_benchmark, items)
        config.hook.pytest_deselected(items=others)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notice where -k left nothing."""
    session.config.stash[_NONE_CHOSEN] = session.config.option.benchmark_only and not session.items


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if config.option.benchmark_disable else f"bench: {THREADS} threads (BENCH_THREADS)"


@pytest.hookimpl(trylast=True)  # after pytest-benchmark's tables
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for measured in config.stash.get(_MEASURED, {}).values():
        for line in lines(measured):
            terminalreporter.write_line(line)
    if config.option.benchmark_disable:
        return
    if config.stash.get(_NONE_CHOSEN, False):
        terminalreporter.write_line("no benchmark was chosen; without --all-cases there are the quick cases only")
    for reason, times in Counter(_reasons(terminalreporter)).items():
        terminalreporter.write_line(f"left out: {reason} ({times})")


def _given(config: pytest.Config, flag: str) -> bool:
    arguments = [*config.invocation_params.args, *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    return any(str(argument).startswith(flag) for argument in arguments)


def _is_benchmark(item: pytest.Item) -> bool:
    return "benchmark" in getattr(item, "fixturenames", ())


def _reasons(terminalreporter: pytest.TerminalReporter) -> Iterator[str]:
    for report in terminalreporter.stats.get("skipped", []):
        if "bench_" in report.nodeid and isinstance(report.longrepr, tuple):
            yield report.longrepr[2].removeprefix("Skipped: ")
