"""`python -m bnnumba` and `python -m bnnumba warm-up`."""

import argparse
import sys
from collections.abc import Collection, Iterable
from importlib.util import find_spec

from bnnumba.command.compiling import compile_all, tasks
from bnnumba.command.facts import cache, facts, kept
from bnnumba.command.speed import CASES, RATE_SIZES, memory_rates, training_steps
from bnnumba.command.steps import HALVES
from bnnumba.command.warm_up import DTYPES, jobs

try:
    from rich.console import Console
    from rich.progress import Progress
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
    warm = commands.add_parser(
        "warm-up",
        help="compile kernels into the disk cache, as for a container",
        description="Compile kernels into the disk cache, where NUMBA_CACHE_DIR says, but those that it holds already. "
        "It has a process for each core.",
    )
    every = (*DTYPES, *HALVES)
    warm.add_argument(
        "--dtype", nargs="+", choices=every, default=list(DTYPES), help="of the data; float32 and float64 without"
    )
    warm.add_argument("--torch", action="store_true", help="the layers of bnnumba.torch, too")
    warm.add_argument("--all", action="store_true", help="every dtype, and bnnumba.torch where PyTorch is installed")
    given = parser.parse_args()
    if not given.command:
        return report(Console())
    if given.all:
        bfloat16 = find_spec("ml_dtypes") is not None
        dtypes = [each for each in every if each != "bfloat16" or bfloat16]
        return warm_up(Console(), dtypes, find_spec("torch") is not None)
    return warm_up(Console(), given.dtype, given.torch)


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


def warm_up(console: Console, dtypes: Collection[str], torch: bool) -> int:
    """Compile the kernels for some dtypes; the status is 1 where the cache does not hold them in the end."""
    chosen, every = jobs([each for each in dtypes if each in DTYPES]), jobs()
    if kept(every):
        with Progress(console=console) as bar:
            task = bar.add_task("compiling", total=len(tasks(dtypes, torch)))
            compile_all(dtypes, torch, lambda number: bar.advance(task, number))
    console.print("compiled kernels:", cache(chosen or every), soft_wrap=True, highlight=False)
    return 0 if kept(every) and all(job.cached for job in chosen) else 1


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
