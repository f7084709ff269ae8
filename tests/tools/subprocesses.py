"""Run a command of this checkout in processes of its own, where Numba reads its settings anew."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT = """
import sys
sys.modules["{library}"] = None
try:
    import {module}
except ModuleNotFoundError as error:
    print(error)
"""


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


def error_without(library, module):
    """What the error says that importing a module of ours raises where a library is missing."""
    return run_python("-c", WITHOUT.format(library=library, module=module))


def run_ranks(number, *arguments, seconds=900):
    """What `python -m mpi4py *arguments` printed on so many ranks, and its exit status; too late, all are killed."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    mpiexec = shutil.which("mpiexec", path=places)
    assert mpiexec, "mpi4py is there, but no mpiexec"
    with subprocess.Popen(
        [mpiexec, "-n", str(number), sys.executable, "-m", "mpi4py", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as job:
        try:
            printed, _ = job.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            raise
    return printed, job.returncode


def run_torch_ranks(number, *arguments, seconds=300, **environment):
    """What `python *arguments` printed on each of so many ranks of torch.distributed, and their exit statuses.

    They find RANK, WORLD_SIZE and MEETING, where to meet, in the environment. Too late, all are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = {"MEETING": (Path(folder) / "meeting").as_uri(), "WORLD_SIZE": str(number), "NUMBA_NUM_THREADS": "1"}
        jobs = [
            subprocess.Popen(
                [sys.executable, *arguments],
                env={**os.environ, **meeting, "RANK": str(rank), **environment},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(number)
        ]
        try:
            printed = [job.communicate(timeout=seconds)[0] for job in jobs]
        finally:
            for job in jobs:
                job.kill()
                job.wait()
    return printed, [job.returncode for job in jobs]
