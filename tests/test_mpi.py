"""Synchronized batch normalization, on several ranks for real; `tests.processes.mpi_ranks` has what they do."""

import re

import numpy as np
import pytest

from tests.tools.subprocesses import run_python, run_ranks

pytest.importorskip("mpi4py")


def check_right(printed, number):
    found = re.findall(r"rank (\d+) of (\d+) is right", printed)
    assert sorted(found) == [(str(rank), str(number)) for rank in range(number)], printed


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_scenario(number):
    printed, status = run_ranks(number, "-m", "tests.processes.mpi_ranks")
    assert status == 0, printed
    check_right(printed, number)


@pytest.mark.parametrize("number", [4, 5, 7])
def test_more_ranks(number):
    printed, status = run_ranks(number, "-m", "tests.processes.mpi_ranks", "tree", "population", "broken_off")
    assert status == 0, printed
    check_right(printed, number)


def test_an_ordinary_process():
    check_right(run_python("-m", "tests.processes.mpi_ranks"), 1)


@pytest.mark.parametrize("number", [2, 3])
def test_a_rank_that_raises_ends_all(number):
    printed, status = run_ranks(number, "-m", "tests.processes.mpi_ranks", "raises", seconds=120)
    assert status != 0
    assert "the last rank's own error" in printed
    assert "is right" not in printed


@pytest.mark.parametrize("comm", [None, "COMM_WORLD"])
def test_comm_must_be_a_communicator(comm):
    from bnnumba.mpi import SyncBatchNormalization  # noqa: PLC0415  # imports mpi4py

    with pytest.raises(TypeError, match="comm must be of class Intracomm, got"):
        SyncBatchNormalization(comm=comm)


def test_a_layer_is_saved_without_its_communicator(tmp_path):
    from mpi4py import MPI  # noqa: PLC0415

    from bnnumba.mpi import SyncBatchNormalization  # noqa: PLC0415

    layer = SyncBatchNormalization(momentum=0.5, comm=MPI.COMM_SELF)
    layer(np.arange(12.0).reshape(4, 3), training=True)
    layer.save(tmp_path / "layer.npz")
    loaded = SyncBatchNormalization.load(tmp_path / "layer.npz")
    assert loaded.comm == MPI.COMM_WORLD
    assert "comm" not in loaded.get_config()
    for one, other in zip(loaded.get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert repr(loaded) == "SyncBatchNormalization(momentum=0.5)"


def test_digits_on_three_ranks():
    """They come out as on one, where the learning rate suits; the batches of 32 do not divide by 3."""
    options = ("-m", "bench.digits", "--mpi", "--epochs", "2")
    accuracies = []
    for number in (1, 3):
        printed, status = run_ranks(number, *options)
        assert status == 0, printed
        assert printed.count("Keras is left out: --mpi") == 1  # one rank prints
        accuracies.append([float(found) for found in re.findall(r"  0\.03 .* ([\d.]+)%", printed)])
    assert len(accuracies[0]) == 4
    np.testing.assert_allclose(*accuracies, atol=2)
    assert min(accuracies[1]) > 80


def test_the_benchmark_runs():
    printed, status = run_ranks(2, "-m", "bench.synchronization", "--features", "8", "--rounds", "1")
    assert status == 0, printed
    assert len(re.findall(r"^ +8 .*\d", printed, flags=re.MULTILINE)) == 1, printed
