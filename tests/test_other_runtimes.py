"""Other libraries bring OpenMP runtimes of their own into the process; nobody waits for ever, and the bits stay."""

from importlib.util import find_spec

import pytest

from tests.tools.subprocesses import run_python

WORK = {
    "torch": "import torch; work = lambda: torch.randn(4096, 256).var(0)",
    "tensorflow": "import tensorflow; work = lambda: tensorflow.reduce_mean(tensorflow.random.normal((4096, 256)))",
    "jax": "import jax; work = lambda: jax.numpy.ones((4096, 256)).mean().block_until_ready()",
    "sklearn": (
        "import numpy; from sklearn.cluster import KMeans; "
        "work = lambda: KMeans(4, n_init=1).fit(numpy.random.default_rng(0).normal(size=(4096, 8)))"
    ),
}
OURS = """
from tests.processes.hostile_processes import PROBLEMS, step
ours = lambda: [step(*each) for each in PROBLEMS]
"""
AFTER = f"{{other}}\nwork(){OURS}found = ours(); work(); assert ours() == found\nprint(found)"
BEFORE = f"{OURS}found = ours()\n{{other}}\nwork(); assert ours() == found; work()\nprint(found)"


@pytest.fixture(scope="module")
def alone():
    return run_python("-c", f"{OURS}print(ours())")


@pytest.mark.parametrize("order", [AFTER, BEFORE], ids=["used before us", "used after us"])
@pytest.mark.parametrize("library", WORK)
def test_same_bits_beside(library, order, alone):
    if not find_spec(library):
        pytest.skip(f"{library} is not installed")
    assert run_python("-c", order.format(other=WORK[library])) == alone
