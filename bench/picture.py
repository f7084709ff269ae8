"""The picture: a panel for each pass, a row for each case, each library's time over the least that memory allows.

Colours and markers are in the table of libraries.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from bench.cases import case_of
from bench.libraries import OURS, PEERS
from bench.results import Results
from bench.summary import CLOSE, words

BEHIND = "#E00000"
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)
FARTHEST = 100  # longer times are drawn here, as hollow markers
SVG = {"svg.hashsalt": "bench", "svg.fonttype": "none"}  # equal results give equal files; text stays text


def draw(results: Results, path: Path) -> None:
    """Draw the results: channels last above channels first, small cases above large ones."""
    cases = sorted(results.seconds, key=lambda name: (not case_of(name).channels_last, case_of(name).nbytes))
    columns = min(2, len(results.passes))
    rows = -(-len(results.passes) // columns)
    figure = Figure(figsize=(6 * columns, rows * (0.7 + 0.21 * len(cases)) + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, pass_name in zip(panels, results.passes, strict=False):
        _prepare(panel, pass_name, cases)
        _plot_ours(panel, *_times(results, cases, pass_name, OURS), fastest(results, cases, pass_name))
        for library in results.libraries:
            if library != OURS:
                _plot_peer(panel, *_times(results, cases, pass_name, library), library)
    for unused in panels[len(results.passes) :]:
        unused.set_axis_off()
    handles = {
        text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    head = "1x is the least time in which the memory can move what a pass must read and write"
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=5, frameon=False, title=head)
    noise = results.noise
    figure.supxlabel(
        f"time over that, logarithmic; hollow: more than {FARTHEST}x{f'. {noise}' if noise else ''}",
        fontsize="medium",
        color=BEHIND if noise else None,
    )
    with mpl.rc_context(SVG):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _times(results: Results, cases: Sequence[str], pass_name: str, library: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows in which a library has a time, and these times over the limit."""
    seconds = [results.seconds[case].get(pass_name, {}).get(library, np.nan) for case in cases]
    times = np.divide(seconds, [results.least(case, pass_name) for case in cases])
    rows = np.flatnonzero(np.isfinite(times))
    return rows, times[rows]


def fastest(results: Results, cases: Sequence[str], pass_name: str) -> list[bool]:
    """Whether no library is ahead of us in each case."""
    entries = (results.seconds[case][pass_name] for case in cases)
    return [min(entry.values()) > CLOSE * entry[OURS] for entry in entries]


def _prepare(panel: Axes, pass_name: str, cases: Sequence[str]) -> None:
    panel.set_title(words(pass_name), fontweight="bold", loc="left")
    panel.set_xscale("log")
    panel.set_xlim(min(TICKS), FARTHEST * 1.15)
    panel.xaxis.set_major_locator(FixedLocator(TICKS))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter("{x:g}x")
    panel.set_ylim(len(cases) - 0.4, -0.6)
    panel.set_yticks(range(len(cases)), [f"{name}  ({_size(case_of(name).nbytes)})" for name in cases])
    panel.grid(color="#EEEEEE")
    panel.axvline(1, color=PEERS[OURS].colour, linewidth=1)
    panel.axhline(sum(case_of(name).channels_last for name in cases) - 0.5, color="#AAAAAA", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)


def _plot_ours(panel: Axes, rows: np.ndarray, times: np.ndarray, led: Sequence[bool]) -> None:
    """Draw a bar from the limit to our time. A peer's marker on the bar is a loss, which turns the bar red."""
    own = PEERS[OURS]
    for colour, ahead, text in (
        (own.colour, True, own.title),
        (BEHIND, False, f"{own.title}, behind another by 3 % or more"),
    ):
        shown = np.equal(led, ahead)
        ends = np.clip(times[shown], min(TICKS), FARTHEST)
        panel.hlines(rows[shown], 1, ends, color=colour, linewidth=6, alpha=0.35)
        panel.plot(ends, rows[shown], own.marker, color=colour, markersize=11, label=text)
        for row, time, end in zip(rows[shown], times[shown], ends, strict=True):
            if time != end:  # beyond the axis
                panel.annotate(
                    f"{time:.3g}x", (end, row), (-14, 0), textcoords="offset points", ha="right", va="center"
                )


def _plot_peer(panel: Axes, rows: np.ndarray, times: np.ndarray, library: str) -> None:
    peer = PEERS[library]
    style = {"color": peer.colour, "marker": peer.marker, "linestyle": "none", "markersize": 7}
    far = times > FARTHEST
    panel.plot(times[~far], rows[~far], **style, markeredgecolor="white", markeredgewidth=0.5, label=peer.title)
    panel.plot(np.full(far.sum(), FARTHEST), rows[far], **style, markerfacecolor="white")


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:.0f} MB" if nbytes >= 1e6 else f"{nbytes / 1e3:.0f} kB"
