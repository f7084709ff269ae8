"""Measure every library, and the memory; show both in a picture and in the tables of README.md and docs/speed.md."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from bench import readme
from bench.cases import CASES
from bench.libraries import OURS, PEERS, Peer
from bench.machine import CORES
from bench.measure import Plan, measure
from bench.passes import PASSES, Pass
from bench.results import Results, collect
from bench.summary import lines

KEPT = Path(__file__).parent / "results" / "report.json"


def _reported(table: Mapping[str, Pass | Peer]) -> list[str]:
    return [name for name, row in table.items() if row.reported]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    for flag, choices, default in (
        ("cases", CASES, None),
        ("passes", PASSES, _reported(PASSES)),
        ("libraries", PEERS, _reported(PEERS)),
    ):
        parser.add_argument(
            f"--{flag}", nargs="+", choices=choices, default=default, metavar="NAME", help=", ".join(choices)
        )
    parser.add_argument("--rounds", type=int, default=10, help="the shortest time of all rounds counts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each entry in each round (%(default)s)")
    parser.add_argument("--threads", type=int, default=CORES, help="of each library (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few cases and three rounds")
    parser.add_argument("--output", type=Path, default=KEPT, help="the results, as JSON; the picture goes beside them")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing; read the results from --output")
    parser.add_argument(
        "--readme", action="store_true", help="write the tables and the picture into README.md and docs/speed.md"
    )
    options = parser.parse_args(arguments)
    if OURS not in options.libraries:
        parser.error(f"--libraries must name {OURS}: the others are compared with it")
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    options.cases = options.cases or [name for name, case in CASES.items() if case.quick or not options.quick]
    return options


def run(options: argparse.Namespace) -> Results:
    """Measure, and save the results."""
    plan = Plan(*(getattr(options, field) for field in Plan._fields))
    results = collect(plan, measure(plan))
    results.save(options.output)
    return results


def main() -> None:
    from bench.picture import draw  # noqa: PLC0415  # needs matplotlib, and nothing else here does

    options = parse()
    results = Results.load(options.output) if options.draw_only else run(options)
    picture = options.output.with_suffix(".svg")
    draw(results, picture)
    print(*lines(results.measurements()), sep="\n")
    for reason, entries in results.left_out.items():
        print(f"left out: {reason} ({entries})")
    if options.readme:
        readme.write(results, picture)
    print(f"{options.output} and {picture}", "and README.md and docs/speed.md" if options.readme else "")
