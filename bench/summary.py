"""All measurements of a run in one small table."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import geometric_mean
from typing import NamedTuple

import pytest

OURS = "bnnumba"


class Measured(NamedTuple):
    """The least time, in seconds, that a library took for a case's pass."""

    case: str
    pass_name: str
    library: str
    seconds: float


MEASURED = pytest.StashKey[list[Measured]]()


def speedups(measurements: Iterable[Measured]) -> Iterator[str]:
    """Lines of a table, pass by library: its time over ours, the geometric mean over the cases and the least."""
    seconds = {(m.pass_name, m.case, m.library): m.seconds for m in measurements}
    ratios = defaultdict(list)
    for (pass_name, case, library), time in seconds.items():
        if library != OURS and (pass_name, case, OURS) in seconds:
            ratios[pass_name, library].append(time / seconds[pass_name, case, OURS])
    if not ratios:
        return
    passes, libraries = (list(dict.fromkeys(key[i] for key in ratios)) for i in (0, 1))
    yield f"time of each library / time of {OURS}, geometric mean over the cases that it takes (least)"
    yield " " * 18 + "".join(f"{library:>18}" for library in libraries)
    for pass_name in passes:
        cells = (_cell(ratios[pass_name, library]) for library in libraries)
        yield f"{pass_name.replace('_', ' '):18}" + "".join(f"{cell:>18}" for cell in cells)


def _cell(ratios: list[float]) -> str:
    return f"{geometric_mean(ratios):.1f} ({min(ratios):.1f})" if ratios else "-"
