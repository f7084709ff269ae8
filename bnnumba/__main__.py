"""`python -m bnnumba` and `python -m bnnumba warm-up`."""

import argparse
import sys
from collections.abc import Iterable

from bnnumba.command.facts import cache, facts
from bnnumba.command.speed import CASES, RATE_SIZES, memory_rates, training_steps
from bnnumba.command.warm_up import jobs

try:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Column, Table
except ModuleNotFoundError:
    sys.exit("python -m bnnumba draws its tables with rich: pip install 'bnnumba[cli]'")

RATE_NAMES = {
    "read": "read",
    "copy": "copy",
    "copy_streamed": "copy, stored past the cache",
    "add": "add",
    "add_streamed": "add, stored past the cache",
}


def main() -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bnnumba", description="Tell what a bug report needs, and how fast this machine is."
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("warm-up", help="compile every kernel into the disk cache, as for a container")
    return warm_up(Console()) if parser.parse_args().command else report(Console())


def report(console: Console) -> int:
    """Print the facts, and measure."""
    all_jobs = jobs()
    rates, steps = {}, []
    if all_jobs:
        with console.status("measuring, and compiling what is not in the cache"):
            rates = {size: memory_rates(elements) for size, elements in RATE_SIZES.items()}
            steps = [step for case in CASES for step in training_steps(*case)]
    _print(console, "", ["", ""], facts(all_jobs))
    if not all_jobs:
        console.print("Nothing is measured: with NUMBA_DISABLE_JIT, kernels run as Python.")
        return 0
    _print(
        console,
        "Memory, GB/s",
        ["arrays of", *rates],
        ([name, *(f"{each[rate]:.1f}" for each in rates.values())] for rate, name in RATE_NAMES.items()),
    )
    _print(
        console,
        "Training step, float32; the limit: the least time that memory allows",
        ["", "", "microseconds", "NumPy's / ours", "of the limit"],
        (
            [
                step.case,
                step.name,
                f"{1e6 * step.ours:.4g}",
                f"{step.numpy / step.ours:.1f}",
                f"{step.limit / step.ours:.0%}",
            ]
            for step in steps
        ),
    )
    return 0


def warm_up(console: Console) -> int:
    """Compile all kernels; the status is 1 where the cache does not hold them in the end."""
    all_jobs = jobs()
    for job in track(all_jobs, "compiling", console=console):
        job.compile()
    console.print("compiled kernels:", cache(all_jobs), soft_wrap=True, highlight=False)
    return 0 if all_jobs and all(job.cached for job in all_jobs) else 1


def _print(console: Console, title: str, heads: list[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table whose numbers are aligned, and of which nothing is cut off."""
    columns = [Column(head, justify="right" if head and k else "left", overflow="fold") for k, head in enumerate(heads)]
    table = Table(*columns, title=title or None, title_justify="left", box=None, show_header=any(heads), pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


if __name__ == "__main__":
    sys.exit(main())
