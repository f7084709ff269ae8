"""The Keras layer and conversion, each backend in a process of its own, as Keras has one in a process."""

from importlib.util import find_spec

import pytest

from tests.tools.subprocesses import run_python

if find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

CASES = ("lockstep", "layers", "models")
NEEDED = {"tensorflow": ("tensorflow",), "torch": ("torch",), "jax": ("jax", "bnnumba.jax")}
BACKENDS = [name for name, needed in NEEDED.items() if all(find_spec(each) for each in needed)]
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}
OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "ignore")


@pytest.mark.parametrize("cases", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_cases(backend, cases):
    run_python("-m", "pytest", f"tests/processes/keras_cases/{cases}.py", *OPTIONS, KERAS_BACKEND=backend, **QUIET)


def test_tensorflow_alone():
    if "tensorflow" not in BACKENDS:
        pytest.skip("TensorFlow is not installed")
    file = "tests/processes/keras_cases/tensorflow_only.py"
    run_python("-m", "pytest", file, *OPTIONS, KERAS_BACKEND="tensorflow", **QUIET)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tests_of_keras_itself(backend):
    printed = run_python("-m", "tests.processes.keras_cases.own_tests", KERAS_BACKEND=backend, **QUIET)
    assert " passed" in printed


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backends_are_not_imported(backend):
    others = {f"bnnumba{room}.{other}" for room in ("", ".keras") for other in NEEDED if other != backend}
    program = (
        "import sys, numpy as np, bnnumba.keras\n"
        "bnnumba.keras.BatchNormalization()(np.ones((2, 3), 'float32'), training=True)\n"
        f"assert not {others} & set(sys.modules)"
    )
    run_python("-c", program, KERAS_BACKEND=backend, **QUIET)
