"""Measure every library, and the memory; show both in a picture and in the tables of README.md and docs/speed.md."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from numpy.exceptions import AxisError
from numpy.lib.array_utils import normalize_axis_tuple

from bench import busy, readme
from bench.cases import CASES, DTYPES, OWN, Case
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
    parser.add_argument("--output", type=Path, help="the results, as JSON; the picture goes beside them")
    parser.add_argument("--draw-only", action="store_true", help="measure nothing; read the results from --output")
    parser.add_argument(
        "--readme", action="store_true", help="write the tables and the picture into README.md and docs/speed.md"
    )
    parser.add_argument("--shape", type=sizes, help="measure this shape, such as 64x28x28x96, instead of the cases")
    parser.add_argument(
        "--feature-axis", type=int, nargs="+", default=[-1], help="of --shape: one, or several (%(default)s)"
    )
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the data (%(default)s)")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="measure calls beside other programs instead, and print a table; see bench.busy",
    )
    options = parser.parse_args(arguments)
    if OURS not in options.libraries:
        parser.error(f"--libraries must name {OURS}: the others are compared with it")
    options.rounds = min(options.rounds, 3) if options.quick else options.rounds
    if options.shape:
        try:
            chosen = [Case(OWN, options.shape, *_axes(options.feature_axis, len(options.shape)))]
        except AxisError as wrong:
            parser.error(f"--feature-axis: {wrong}")
    else:
        names = options.cases or [name for name, case in CASES.items() if case.quick or not options.quick]
        chosen = [CASES[name] for name in names]
    options.cases = [str(replace(case, dtype=options.dtype)) for case in chosen]
    if options.output is None:  # what the README shows is of all cases
        options.output = KEPT if options.cases == list(CASES) else KEPT.with_name("own.json")
    if options.readme and options.cases != list(CASES):
        parser.error("--readme needs all cases, in float32")
    return options


def sizes(text: str) -> tuple[int, ...]:
    """The sizes of a shape, as in 64x28x28x96."""
    shape = tuple(map(int, text.split("x")))
    if min(shape) < 1:
        raise ValueError(text)
    return shape


def _axes(given: list[int], ndim: int) -> list[int | tuple[int, ...]]:
    """A case's feature axis, as it takes it."""
    axes = normalize_axis_tuple(given, ndim)
    return [axes[0] if len(axes) == 1 else tuple(sorted(axes))]


def run(options: argparse.Namespace) -> Results:
    """Measure, and save the results."""
    plan = Plan(*(getattr(options, field) for field in Plan._fields))
    results = collect(plan, measure(plan))
    results.save(options.output)
    return results


def main() -> None:
    from bench.picture import draw  # noqa: PLC0415  # needs matplotlib, and nothing else here does

    options = parse()
    if options.busy:
        print(*busy.table(), sep="\n")
        return
    results = Results.load(options.output) if options.draw_only else run(options)
    picture = options.output.with_suffix(".svg")
    draw(results, picture)
    print(*lines(results.measurements()), sep="\n")
    for reason, entries in results.left_out.items():
        print(f"left out: {reason} ({entries})")
    if options.readme:
        readme.write(results, picture)
    print(f"{options.output} and {picture}", "and README.md and docs/speed.md" if options.readme else "")
