"""What the report writes: picture and summary into README.md, and the times of each case into docs/speed.md."""

import os
from collections.abc import Sequence
from pathlib import Path

from bench.libraries import OURS, title
from bench.results import Results
from bench.summary import CLOSE, speedups, words

README = Path(__file__).parent.parent / "README.md"
SPEED = README.parent / "docs" / "speed.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
RUNTIME = {"python": "Python", "numba": "Numba"}  # have a version, but are not in the table of libraries
DETAILED = ("training_forward", "inference", "backward")  # the passes whose times are shown for each case


def write(results: Results, picture: Path) -> None:
    """Replace what stands between the markers of both pages."""
    for page, block in blocks(results, picture).items():
        page.write_text(replaced(page.read_text(encoding="utf-8"), block), encoding="utf-8")


def replaced(text: str, new: str) -> str:
    """The text with a new block between its markers. ValueError unless each marker is there once, and in order."""
    if [text.count(BEGIN), text.count(END)] != [1, 1] or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md and docs/speed.md must each have one {BEGIN!r}, and after it one {END!r}")
    return f"{text.partition(BEGIN)[0]}{BEGIN}\n{new}\n{END}{text.partition(END)[2]}"


def blocks(results: Results, picture: Path) -> dict[Path, str]:
    """For each page, what stands between its markers."""
    relative = Path(os.path.relpath(picture, README.parent)).as_posix()
    return {README: summary(results, relative), SPEED: details(results)}


def summary(results: Results, picture: str) -> str:
    """Paragraphs of Markdown: the picture, of which this is the path, the mean ratios, and the comparisons lost."""
    parts = (
        f"![Each library's time for each case, over the least time that the memory allows]({picture})",
        f"The libraries' times over {OURS}'s, geometric mean over {len(results.seconds)} cases (and the least):",
        table([[title(cell) for cell in row] for row in speedups(results.measurements())]),
        losses(results),
        origin(results),
    )
    return "\n\n".join(parts)


def details(results: Results) -> str:
    """Paragraphs of Markdown: the times of each case."""
    detailed = [pass_name for pass_name in DETAILED if pass_name in results.passes]
    parts = (
        f"Microseconds: {' / '.join(map(words, detailed))}; the best in bold. Of the limit: the least time that "
        f"memory allows, over {OURS}'s.",
        table(times(results, detailed)),
        origin(results),
    )
    return "\n\n".join(parts)


def times(results: Results, passes: Sequence[str]) -> list[list[str]]:
    """A row for each case, a cell for each library: its microseconds for each pass."""
    rows = [["case", "of the limit", *(title(library) for library in results.libraries)]]
    for case, of_passes in results.seconds.items():
        shares = (results.least(case, name) / of_passes[name][OURS] for name in passes)
        cells = (
            " / ".join(_time(of_passes[name], library) for name in passes)
            if any(library in of_passes[name] for name in passes)
            else "-"
            for library in results.libraries
        )
        rows.append([case, " / ".join(f"{share:.0%}" for share in shares), *cells])
    return rows


def losses(results: Results) -> str:
    """How many comparisons another library wins, and the one that it wins by most."""
    compared = [m for m in results.measurements() if m.library != OURS]
    ratios = {m: m.seconds / results.seconds[m.case][m.pass_name][OURS] for m in compared}
    count = sum(ratio <= CLOSE for ratio in ratios.values())
    told = f"Another library is ahead by 3 % or more in {count} of {len(ratios)} comparisons"
    if not count:
        return f"{told}."
    worst = min(ratios, key=ratios.get)
    where = f"{worst.case} {words(worst.pass_name)}, by {title(worst.library)} ({ratios[worst]:.2f})"
    return f"{told}, which the picture shows in red; by most in {where}."


def origin(results: Results) -> str:
    """When, where, how and with which versions the results were measured."""
    machine, how = results.machine, results.run
    caches = ", ".join(f"{name} {size} KiB" for name, size in machine["caches"].items())
    versions = ", ".join(f"{RUNTIME.get(name, title(name))} {version}" for name, version in results.versions.items())
    return (
        f"Measured {results.date}: {machine['processor']}, {machine['cores']} cores (caches of a core: {caches}); "
        f"{how['threads']} threads for every library, the best of {how['rounds']} rounds. {versions}."
        f"{f' **{results.noise}.**' if results.noise else ''}"
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _time(of_libraries: dict[str, float], library: str) -> str:
    if library not in of_libraries:
        return "-"
    microseconds = of_libraries[library] * 1e6
    text = f"{microseconds:.1f}" if microseconds < 10 else f"{microseconds:.0f}"
    return f"**{text}**" if of_libraries[library] == min(of_libraries.values()) else text
