"""The report's arithmetic, tables, file and processes."""

from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from bench import busy, libraries, limits, readme, small
from bench.cases import CASES, SMALLEST, Case, case_of, make_problem
from bench.check import check
from bench.libraries import OURS, PEERS
from bench.library import MEMORY, LeftOutError, load
from bench.machine import CORES, cache_sizes
from bench.measure import Outcome, Plan, Process
from bench.passes import PASSES
from bench.report import KEPT, parse
from bench.results import Results, collect
from bnnumba.command.timing import least_time

LAST, FIRST = "last-32x56x56x64", "first-32x64x56x56"
RATES = {"read": 10.0, "copy": 8.0, "copy_streamed": 16.0, "add": 12.0, "add_streamed": 6.0}  # GB/s
RESULTS = Results(
    date="2000-01-01",
    machine={"processor": "one", "cores": 2, "caches": {"L1": 32}},
    run={"threads": 2, "rounds": 3, "seconds of a burst": 0.1},
    versions={"python": "3", "numba": "0", OURS: "1", "numpy": "2", "torch": "3"},
    left_out={"torch: because": 1},
    rates={LAST: RATES, FIRST: RATES},
    seconds={
        LAST: {"inference": {OURS: 0.004, "numpy": 0.008, "torch": 0.002}},
        FIRST: {"inference": {OURS: 0.004, "numpy": 0.032}},
    },
)


@pytest.mark.parametrize(
    ("name", "pass_name", "gigabytes"),
    [
        (LAST, "moments", {"read": 1}),
        (LAST, "inference", {"copy": 2}),
        (LAST, "training_forward", {"read": 1, "copy": 2}),
        (LAST, "backward", {"read": 2, "add": 3}),
        (LAST, "frozen_backward", {"add": 3}),
        (LAST, "forward_backward", {"read": 3, "copy": 2, "add": 3}),
        (FIRST, "moments", {"read": 1}),
        (FIRST, "inference", {"copy": 2}),
        (FIRST, "training_forward", {"copy": 2}),
        (FIRST, "backward", {"add": 3}),
        (FIRST, "frozen_backward", {"add": 3}),
        (FIRST, "forward_backward", {"copy": 2, "add": 3}),
    ],
)
def test_a_limit_is_the_time_of_its_sweeps_with_the_better_stores(
    name: str, pass_name: str, gigabytes: dict[str, int]
) -> None:
    case, best = CASES[name], {"read": 10e9, "copy": 16e9, "add": 12e9}
    least = sum(sizes * 4 * 32 * 56 * 56 * 64 / best[sweep] for sweep, sizes in gigabytes.items())
    assert limits.least_seconds(case, pass_name, RATES) == pytest.approx(least)


@pytest.mark.parametrize("pass_name", PASSES)
def test_a_limit_moves_what_the_table_of_passes_says(pass_name: str) -> None:
    at_one = dict.fromkeys(RATES, 1.0)
    least = PASSES[pass_name].traffic * CASES[FIRST].nbytes / 1e9
    assert limits.least_seconds(CASES[FIRST], pass_name, at_one) == pytest.approx(least)


@pytest.mark.parametrize("rate", limits.RATES)
def test_a_rate_that_leaves_something_out_is_refused(rate: str) -> None:
    x, dy = np.full(64, 2, np.float32), np.full(64, 3, np.float32)
    right = {"read": x.reshape(2, 32).sum(axis=1), "copy": x.copy(), "add": x + dy}[rate.removesuffix("_streamed")]
    limits.check(SMALLEST, rate, {"x": x, "dy": dy, "returned": right})
    right[-1] = 0
    with pytest.raises(AssertionError, match=rate):
        limits.check(SMALLEST, rate, {"x": x, "dy": dy, "returned": right})


def test_least_time_is_of_one_call() -> None:
    assert 1e-9 < least_time(lambda: None, 0.01) < 1e-6
    assert 1e-3 < least_time(lambda: sleep(1e-3), 0.01) < 5e-3


def test_a_process_answers_for_its_library_and_its_end_is_noticed() -> None:
    process, name = Process("numpy"), str(SMALLEST)
    version, results = process.ask("prepare", name, "inference")
    check(SMALLEST, "inference", results)
    assert version == np.__version__
    assert 0 < process.ask("time", "inference", 0.001) < 0.1
    with pytest.raises(RuntimeError, match="the process of numpy ended"):
        process.ask("no such method")
    process.close()


def test_a_library_that_refuses_says_why() -> None:
    process = Process("onnxruntime")
    reply = process.ask("prepare", str(SMALLEST), "backward")
    process.close()
    assert process.process.exitcode == 0
    assert isinstance(reply, LeftOutError)
    assert str(reply).startswith("onnxruntime: ")


def test_the_memorys_rates_are_separated_from_the_libraries_times() -> None:
    seconds = {rate: {MEMORY: moves * 0.001} for rate, moves in limits.RATES.items()}
    seconds["inference"] = {OURS: 0.00123456, "numpy": 2.0}
    plan = Plan([FIRST], ["inference"], [OURS, "numpy"], rounds=3, seconds=0.1, threads=2)
    versions = {OURS: "1", "numpy": "2", MEMORY: "0.6"}
    results = collect(plan, Outcome({FIRST: seconds}, versions, {"torch: because": 1}))
    assert results.rates == {FIRST: dict.fromkeys(limits.RATES, 25.69)}  # of 25.69 MB in a millisecond
    assert results.seconds == {FIRST: {"inference": {OURS: 0.001235, "numpy": 2.0}}}
    assert results.versions.items() >= {"numba": "0.6", OURS: "1", "numpy": "2"}.items()
    assert results.least(FIRST, "inference") == pytest.approx(0.002, rel=1e-3)


def test_results_come_back_from_their_file_which_has_a_line_for_each_pass(tmp_path: Path) -> None:
    RESULTS.save(tmp_path / "new" / "report.json")
    assert Results.load(tmp_path / "new" / "report.json") == RESULTS
    text = (tmp_path / "new" / "report.json").read_text(encoding="utf-8")
    assert '\n      "inference": {"bnnumba": 0.004, "numpy": 0.032}\n' in text


def test_the_readme_tells_speedups_and_losses() -> None:
    block = readme.summary(RESULTS, "a.svg")
    assert "](a.svg)" in block
    assert "\n| inference | 4.0 (2.00) | 0.5 (0.50) |\n" in block
    assert "ahead by 3 % or more in 1 of 3 comparisons" in block
    assert f"by most in {LAST} inference, by PyTorch (0.50)." in block


def test_the_page_on_speed_tells_times_and_limits() -> None:
    block = readme.details(RESULTS)
    # 2 * 25.7 MB at 16 GB/s are 3.2 ms, 80 % of 4 ms.
    assert f"\n| {LAST} | 80% | 4000 | 8000 | **2000** |\n" in block
    assert f"\n| {FIRST} | 80% | **4000** | 32000 | - |\n" in block


def test_a_run_on_a_busy_machine_says_so() -> None:
    assert "busy" not in readme.origin(RESULTS)
    for run in ({"load": 1.5, "spread": 1.0}, {"load": 0.0, "spread": 2.0}):
        assert "busy machine: load" in readme.origin(replace(RESULTS, run=RESULTS.run | run))


def test_a_case_of_ones_own_is_told_by_its_name() -> None:
    for arguments, name, case in (
        (["--shape", "64x28x28x96"], "own-64x28x28x96-axis3", Case("own", (64, 28, 28, 96), 3)),
        (
            ["--shape", "6x5x4", "--feature-axis", "-2", "0", "--dtype", "float64"],
            "own-6x5x4-axis0,1-float64",
            Case("own", (6, 5, 4), (0, 1), dtype="float64"),
        ),
    ):
        options = parse(arguments)
        assert options.cases == [name]
        assert options.output != KEPT
        assert case_of(name) == case
    assert case_of(f"{LAST}-float64") == replace(CASES[LAST], dtype="float64")
    assert parse(["--dtype", "float64"]).cases == [f"{name}-float64" for name in CASES]


@pytest.mark.parametrize(
    "arguments",
    [["--shape", "3x-1"], ["--shape", "3xa"], ["--shape", "3", "--feature-axis", "1"], ["--readme", "--quick"]],
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)


@pytest.mark.parametrize("library", ["bnnumba", "numpy", "torch"])
@pytest.mark.parametrize("pass_name", ["inference", "training_forward", "backward", "frozen_backward"])
def test_float64_is_computed_in_float64(library: str, pass_name: str) -> None:
    case = replace(SMALLEST, dtype="float64")
    try:
        entry = load(library, case, pass_name)(make_problem(case))
    except LeftOutError as reason:
        pytest.skip(str(reason))
    results = entry.results(pass_name, getattr(entry, pass_name)()())
    check(case, pass_name, results)
    assert {array.dtype.name for array in results.values()} == {"float64"}


def test_libraries_that_do_not_take_float64_are_left_out() -> None:
    with pytest.raises(LeftOutError, match="float64 is not compared"):
        load("keras", replace(SMALLEST, dtype="float64"), "inference")


def test_cache_sizes_are_read(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "48K"), ("3", "Unified", "32M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    assert cache_sizes(tmp_path) == {"L1": 32, "L3": 32768}


def test_the_busy_table_has_a_row_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "SIZES", {"1 KiB": 2**10})
    monkeypatch.setattr(busy, "SECONDS", 0.01)
    first, _, *rows = busy.table()
    assert "beside k busy programs" in first
    assert len(rows) == 3 * (min(2, CORES) + 1)


def test_small_calls_are_compared(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("ROUNDS", 1), ("CALLS", 1), ("SHAPES", ((8, 4),))):
        monkeypatch.setattr(small, name, value)
    small.main()
    _, heads, *rows = capsys.readouterr().out.splitlines()
    assert "Python's share" in heads
    assert len(rows) == 6


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    assert readme.replaced(text, "new") == f"before\n{readme.BEGIN}\nnew\n{readme.END}\nafter\n"
    for wrong in (text.replace(readme.BEGIN, ""), text * 2, f"{readme.END}{readme.BEGIN}"):
        with pytest.raises(ValueError, match="README"):
            readme.replaced(wrong, "new")


def test_the_pages_are_what_the_kept_results_say() -> None:
    blocks = readme.blocks(Results.load(KEPT), KEPT.with_suffix(".svg"))
    assert list(blocks) == [readme.README, readme.SPEED]
    for page, block in blocks.items():
        text = page.read_text(encoding="utf-8")
        assert readme.replaced(text, block) == text


def test_every_case_and_peer_is_measured_by_default() -> None:
    options = parse([])
    assert list(options.cases) == list(CASES)
    assert list(options.libraries) == [name for name in PEERS if name != "bnnumba serial"]


def test_every_file_of_a_library_has_a_row_which_can_be_told_apart() -> None:
    files = {path.stem for path in Path(libraries.__file__).parent.glob("*.py")} - {"__init__"}
    assert {peer.path.partition(":")[0] for peer in PEERS.values()} == files
    for field in ("path", "title", "colour", "marker"):
        assert len({getattr(peer, field) for peer in PEERS.values()}) == len(PEERS)


def test_the_picture_shows_every_library_and_case(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from bench.picture import draw, fastest  # noqa: PLC0415

    far = replace(RESULTS, seconds={**RESULTS.seconds, FIRST: {"inference": {OURS: 0.9, "numpy": 1.0}}})
    draw(far, tmp_path / "far.svg")
    assert ">280x<" in (tmp_path / "far.svg").read_text(encoding="utf-8")
    draw(RESULTS, tmp_path / "a.svg")
    draw(RESULTS, tmp_path / "b.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert drawn == (tmp_path / "b.svg").read_text(encoding="utf-8")
    for text in (OURS, "NumPy", "PyTorch", LAST, FIRST, "inference"):
        assert text in drawn
    assert fastest(RESULTS, [LAST, FIRST], "inference") == [False, True]
