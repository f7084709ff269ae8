"""Run a command of this checkout in a process of its own, where Numba reads its settings anew."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_python(*arguments, **environment):
    """What `python *arguments` printed; it must succeed, and Numba must have nothing to warn of."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,  # a pool waits for ever for a worker that was killed
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Numba" not in done.stderr, done.stderr
    return done.stdout
