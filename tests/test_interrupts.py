"""Interrupts (Ctrl-C) for real."""

import signal

import pytest

from tests.tools.subprocesses import run_python


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_interrupts_leave_everything_whole(tmp_path):
    assert run_python("-m", "tests.processes.interrupts", NUMBA_CACHE_DIR=str(tmp_path)) == "right\n"


ALARM = """
import signal, time
import numpy as np
import bnnumba

class Late(Exception):
    pass

def alarm(*_):
    calls.append("alarm")
    raise Late

def usual(*_):
    calls.append("usual")

calls, outcomes = [], set()
signal.signal(signal.SIGALRM, alarm)
signal.signal(signal.SIGUSR1, usual)
x = np.arange(12.0).reshape(4, 3)
for delay in np.arange(0.05, 3, 0.15):
    signal.setitimer(signal.ITIMER_REAL, delay)
    signal.raise_signal(signal.SIGUSR1)
    try:
        bnnumba.moments(x)
        outcomes.add("done")
    except Late:
        outcomes.add("late")
    signal.setitimer(signal.ITIMER_REAL, 0)
assert outcomes == {"late", "done"}, outcomes
assert calls.count("usual") == 20
assert signal.getsignal(signal.SIGALRM) is alarm
assert (bnnumba.moments(x).mean == [4.5, 5.5, 6.5]).all()
y, _ = bnnumba.batch_norm(x)
assert np.isfinite(y).all()
print("right")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers that interrupt")
def test_an_alarm_during_a_compilation(tmp_path):
    """As of pytest-timeout: what its handler raises comes when the kernel is compiled, and Numba is whole."""
    assert run_python("-c", ALARM, NUMBA_CACHE_DIR=str(tmp_path)) == "right\n"
