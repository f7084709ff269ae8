"""The results of the report's run, and their file."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cpuinfo  # comes with pytest-benchmark

from bench import limits
from bench.cases import case_of
from bench.libraries import PEERS
from bench.library import MEMORY
from bench.machine import CORES, cache_sizes
from bench.measure import Outcome, Plan
from bench.summary import Measured

QUIET_LOAD = 0.5  # processes that ran when the measurement began
QUIET_SPREAD = 1.15  # the median of the rounds over the best, in the median of all entries


@dataclass(frozen=True)
class Results:
    """What was measured.

    rates: the memory's, in GB/s, by case and rate.
    seconds: of one call, by case, pass and library.
    left_out: the reasons why libraries have no entry, each with the number of entries.
    """

    date: str
    machine: dict[str, Any]
    run: dict[str, Any]
    versions: dict[str, str]
    left_out: dict[str, int]
    rates: dict[str, dict[str, float]]
    seconds: dict[str, dict[str, dict[str, float]]]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_text(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Results":
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def least(self, case: str, pass_name: str) -> float:
        """The fewest seconds that the memory allows."""
        return limits.least_seconds(case_of(case), pass_name, self.rates[case])

    def measurements(self) -> list[Measured]:
        return [
            Measured(case, pass_name, library, seconds)
            for case, passes in self.seconds.items()
            for pass_name, libraries in passes.items()
            for library, seconds in libraries.items()
        ]

    @property
    def noise(self) -> str:
        """What was wrong with the machine while it measured; empty where it was quiet."""
        load, spread = self.run.get("load", 0.0), self.run.get("spread", 1.0)
        if load <= QUIET_LOAD and spread <= QUIET_SPREAD:
            return ""
        return f"Measured on a busy machine: load {load:g} before; the median round took {spread:.2f} times the best"

    @property
    def passes(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(m.pass_name for m in self.measurements()))

    @property
    def libraries(self) -> list[str]:
        """In the order of their table."""
        return [library for library in PEERS if any(m.library == library for m in self.measurements())]


def collect(plan: Plan, outcome: Outcome) -> Results:
    """Separate the memory's rates from the libraries' times, and add the date, the machine and the versions."""
    rates, seconds = {}, {}
    for name, passes in outcome.seconds.items():
        rates[name] = {
            rate: _rounded(limits.gigabytes_per_second(case_of(name), rate, passes.pop(rate)[MEMORY]))
            for rate in limits.RATES
        }
        seconds[name] = {
            pass_name: {library: _rounded(time) for library, time in times.items()}
            for pass_name, times in passes.items()
        }
    versions = {"python": platform.python_version(), "numba": outcome.versions.pop(MEMORY), **outcome.versions}
    run = {"threads": plan.threads, "rounds": plan.rounds, "seconds of a burst": plan.seconds}
    run |= {"load": round(outcome.load, 2), "spread": round(outcome.spread, 3)}
    date = datetime.now(UTC).date().isoformat()
    return Results(date, _machine(), run, versions, dict(outcome.left_out), rates, seconds)


def _machine() -> dict[str, Any]:
    processor = cpuinfo.get_cpu_info().get("brand_raw", platform.machine())
    return {"processor": processor, "cores": CORES, "caches": cache_sizes()}


def _rounded(value: float) -> float:
    """Four digits: no measurement here is more precise."""
    return float(f"{value:.4g}")


def _text(value: Any, indent: str = "") -> str:
    """JSON with one line for each dict that holds no other dict, so that two runs can be compared line by line."""
    if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
        return json.dumps(value, ensure_ascii=False)
    deeper = indent + "  "
    lines = (f"{deeper}{json.dumps(key)}: {_text(inner, deeper)}" for key, inner in value.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
