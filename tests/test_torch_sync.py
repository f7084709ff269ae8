"""`bnnumba.torch.SyncBatchNorm` on several ranks for real; `tests.processes.torch_ranks` has what they do."""

import re

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from tests.tools.subprocesses import run_python, run_torch_ranks  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def check_right(number, *arguments):
    printed, statuses = run_torch_ranks(number, "-m", *arguments)
    assert statuses == [0] * number, "\n".join(printed)
    assert [f"rank {rank} of {number} is right" in each for rank, each in enumerate(printed)] == [True] * number


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_scenario(number):
    check_right(number, "tests.processes.torch_ranks")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_models_in_training(number):
    check_right(number, "tests.processes.torch_training")


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("way", ["raises", "killed", "late"])
def test_a_rank_that_fails_ends_all(way, number):
    """Within the process group's timeout, in words that name the layer."""
    printed, statuses = run_torch_ranks(number, "-m", "tests.processes.torch_ranks", way, seconds=100)
    assert 0 not in statuses, printed
    assert not any("is right" in each for each in printed)
    call = "backward" if way == "killed" else "training call"
    for each in printed[:-1]:
        assert f"RuntimeError: {call} of layer 1: " in each
    if way == "raises":
        assert "the last rank's own error" in printed[-1]


def test_a_converted_layer_has_its_name_in_errors():
    printed, statuses = run_torch_ranks(2, "-m", "tests.processes.torch_training", "fails", seconds=100)
    assert 0 not in statuses
    assert "RuntimeError: training call of layer 3 (3.body.4): rank 0 waited in vain for rank 1" in printed[0]


def test_the_benchmark_runs():
    printed = run_python("-m", "bench.synchronization_torch", "--features", "8", "--rounds", "1")
    assert len(re.findall(r"^ +8 .*\d", printed, flags=re.MULTILINE)) == 1, printed
