"""All measurements of a run, in one small table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import geometric_mean
from typing import NamedTuple

from bench.libraries import OURS, PEERS

CLOSE = 0.97  # of times whose ratio is more than that, neither counts as ahead: so much they differ from run to run


class Measured(NamedTuple):
    """The shortest time, in seconds, of a library for a pass of a case."""

    case: str
    pass_name: str
    library: str
    seconds: float


def words(name: str) -> str:
    """A pass's name where people read it."""
    return name.replace("_", " ")


def ratios(measurements: Iterable[Measured]) -> Mapping[tuple[str, str], Sequence[float]]:
    """By pass and library, its time over ours in each case that both take. Of several times of one, the shortest."""
    seconds: dict[tuple[str, str, str], float] = {}
    for m in measurements:
        key = m.pass_name, m.case, m.library
        seconds[key] = min(m.seconds, seconds.get(key, m.seconds))
    found = defaultdict(list)
    for (pass_name, case, library), time in seconds.items():
        if library != OURS and (pass_name, case, OURS) in seconds:
            found[pass_name, library].append(time / seconds[pass_name, case, OURS])
    return found


def speedups(measurements: Iterable[Measured]) -> list[list[str]]:
    """A table of each library's time over ours: the geometric mean over the cases, and the least ratio.

    The first row has the libraries' names, the first column the passes'. A pass without a ratio has no row. Columns
    follow the table of libraries; names that are not in it come last.
    """
    found = ratios(measurements)
    passes, measured = (dict.fromkeys(key[i] for key in found) for i in (0, 1))
    others = [name for name in measured if name not in PEERS]
    libraries = [library for library in PEERS if library in measured] + others
    cells = [[_cell(found.get((pass_name, library), ())) for library in libraries] for pass_name in passes]
    return [[words(name), *row] for name, row in zip(["", *passes], [libraries, *cells], strict=True)]


def lines(measurements: Iterable[Measured]) -> Iterator[str]:
    """The table as text, for a terminal."""
    table = speedups(measurements)
    if len(table) > 1:
        yield f"time of each library / time of {OURS}, geometric mean over the cases that it takes (least)"
        for first, *cells in table:
            yield f"{first:34}" + "".join(f"{cell:>18}" for cell in cells)


def _cell(of_cases: Sequence[float]) -> str:
    return f"{geometric_mean(of_cases):.1f} ({min(of_cases):.2f})" if of_cases else "-"
