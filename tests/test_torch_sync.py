"""`bnnumba.torch.SyncBatchNorm` on several ranks for real; `tests.processes.torch_ranks` has what they do."""

import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)

from tests.tools.subprocesses import run_torch_ranks  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without torch.distributed")


def check_right(number, *arguments):
    printed, statuses = run_torch_ranks(number, "-m", *arguments)
    assert statuses == [0] * number, "\n".join(printed)
    assert [f"rank {rank} of {number} is right" in each for rank, each in enumerate(printed)] == [True] * number


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_scenario(number):
    check_right(number, "tests.processes.torch_ranks")


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
