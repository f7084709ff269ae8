"""`python -m bnnumba` for real, and what importing the package does not do."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from bnnumba import _threads, direct
from bnnumba.command import compiling
from bnnumba.command.warm_up import FORMS, jobs
from tests.tools.subprocesses import ROOT, run_python


def test_the_report_tells_all_facts_and_measures(tmp_path):
    printed = run_python("-m", "bnnumba", COLUMNS="200")
    for fact in (
        "bnnumba",
        "Python",
        "numpy",
        "llvmlite",
        "processor",
        "threads",
        "compiled kernels",
    ):
        assert fact in printed
    for measured in ("Memory, GB/s", "stored past the cache", "Training step", "channels first", "backward", "%"):
        assert measured in printed
    assert "nan" not in printed.lower()


def test_the_report_without_compiling():
    printed = run_python("-m", "bnnumba", NUMBA_DISABLE_JIT="1")
    assert "NUMBA_DISABLE_JIT is set" in printed
    assert "Nothing is measured" in printed


def test_every_kernel_has_its_types():
    assert {job.name.partition(",")[0] for job in jobs() if job.name not in {**direct.FORM, **_threads.FORM}} == {
        f"{form}.{name} of {dtype}"
        for form, module in FORMS.items()
        for name in module.FORM
        for dtype in ("float32", "float64")
    }


AFTER_WARM_UP = """
import numpy as np
import bnnumba
from bnnumba import _threads, direct
from bnnumba.command import compiling
from bnnumba.command.warm_up import jobs
from bnnumba.kernels import serial, threaded

for dtype in (np.float32, np.float64):
    for shape in ((8, 4, 5), (64, 4, 4000)):
        x = np.ones(shape, dtype)
        for activation in (None, "relu"):
            for options in ({}, {"residual": x}, {"mask": np.ones((1, 1, 1), bool)}):
                layer = bnnumba.BatchNormalization(1, activation=activation)
                layer(x, training=True, **options)
                layer.backward(x)
                layer.trainable = False
                layer(x, training=True, **options)
                layer.backward(x)
        bnnumba.merge_moments(*[bnnumba.moments(x, 1)] * 2)
        bnnumba.batch_norm_backward(x, x, np.ones(4), np.ones(4), None, 1, needs_dx=False)
known = {(job.kernel, job.signature) for job in jobs()}
used = {(kernel, s) for form in (serial, threaded) for kernel in form.FORM.values() for s in kernel.signatures}
print(len(used) > 0, [f"{kernel} {s}" for kernel, s in used - known])
print(sum(sum(kernel.stats.cache_misses.values()) for kernel, _ in used))
"""


def test_nothing_compiles_after_warm_up():
    """The ordinary cache may hold a kernel that only a test has compiled: so warm-up must know all that are used."""
    assert f"{len(jobs())} of {len(jobs())} in " in run_python("-m", "bnnumba", "warm-up")
    assert run_python("-c", AFTER_WARM_UP) == "True []\n0\n"


SOME = """
from bnnumba.command import compiling, warm_up

number = len(compiling.tasks(["float32"], False))
done = sum(compiling.compile_slice(["float32"], False, first, first + 1) for first in (0, number // 2, number - 1))
kernels = {job.kernel for job in warm_up.jobs(["float32"])}
print(done, sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels))
"""


def test_warm_up_keeps_what_it_compiles(tmp_path):
    """Some kernels into an empty directory, where the next process finds them."""
    for loaded in (0, 3):
        assert run_python("-c", SOME, NUMBA_CACHE_DIR=str(tmp_path)) == f"3 {loaded}\n"


def test_all_is_compiled_once(monkeypatch):
    monkeypatch.setattr(compiling, "ProcessPoolExecutor", lambda *_: ThreadPoolExecutor(2))
    done = []
    monkeypatch.setattr(compiling, "tasks", lambda *_: [partial(done.append, number) for number in range(7)])
    numbers = []
    compiling.compile_all([], False, numbers.append)
    assert sorted(done) == list(range(7))
    assert sum(numbers) == 7


@pytest.mark.parametrize(
    "environment", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}], ids=str
)
def test_warm_up_fails_where_nothing_is_kept(environment):
    command = [sys.executable, "-W", "ignore", "-m", "bnnumba", "warm-up"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "compiled kernels: no" in done.stdout


def test_without_rich_the_extra_is_named():
    code = "import sys; sys.modules['rich'] = None; sys.argv[1:] = []; import bnnumba.__main__"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'bnnumba[cli]'" in done.stderr


def test_importing_compiles_nothing_and_draws_nothing():
    code = """
import sys
import bnnumba
from bnnumba.kernels import serial, threaded
assert not [name for name in sys.modules if name.startswith(("rich", "bnnumba.command"))]
print([name for form in (serial, threaded) for name, kernel in form.FORM.items() if kernel.overloads])
"""
    assert run_python("-c", code) == "[]\n"


STEPS = """
import numba
from bnnumba import forms
from bnnumba.command import steps
from bnnumba.command.steps import half_precision, of_pytorch
steps.SHAPES = ((8, 4, 2, 3),) * 2  # all is Python here
made = {made}
for _, run in made:
    run()
print(len(made), sorted(dict.fromkeys(kernel.__name__ for kernel, key in forms._versions if key))[:3])
"""


@pytest.mark.parametrize("made", ['list(half_precision("float16"))', 'list(half_precision("bfloat16"))'])
def test_steps_that_warm_up_half_precision(made):
    assert run_python("-c", STEPS.format(made=made), NUMBA_DISABLE_JIT="1") == "18 []\n"


def test_steps_that_warm_up_pytorch():
    pytest.importorskip("torch")
    assert run_python("-c", STEPS.format(made='list(of_pytorch("bfloat16"))'), NUMBA_DISABLE_JIT="1") == "12 []\n"


LOGGED = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
import numpy, bnnumba
from bnnumba import _jit
_jit.SLOW_SECONDS = {seconds}
bnnumba.update_moving(numpy.zeros(2), numpy.ones(2), bnnumba.Moments(numpy.ones(2), numpy.ones(2), 3), 0.75)
"""


def test_a_long_compilation_is_logged(tmp_path):
    said = run_python("-c", LOGGED.format(seconds=0.0), NUMBA_CACHE_DIR=str(tmp_path))
    assert said.startswith("bnnumba INFO compiled the kernel update_moving (serial, float64) in ")
    assert "python -m bnnumba warm-up" in said
    assert run_python("-c", LOGGED.format(seconds=1.0), NUMBA_CACHE_DIR=str(tmp_path)) == ""


def test_the_choice_of_what_is_warmed_up(tmp_path):
    command = [sys.executable, "-m", "bnnumba", "warm-up", "--dtype", "float31"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'float31' (choose from " in done.stderr
