"""Interrupts (Ctrl-C) for real."""

import signal

import pytest

from tests.tools.subprocesses import run_python


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_interrupts_leave_everything_whole(tmp_path):
    assert run_python("-m", "tests.processes.interrupts", NUMBA_CACHE_DIR=str(tmp_path)) == "right\n"
