"""No kernel reads or writes beyond its arrays, leaves an element out, or keeps memory."""

import gc
import json
import sys

import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import bnnumba
from bnnumba.kernels import serial, threaded
from tests.processes.kernel_results import EMPTY, SHAPES, digest, every_result, label
from tests.tools.problems import FLOATS, problem, same_bits
from tests.tools.subprocesses import run_python

MIB = 2**20


@pytest.fixture(scope="module")
def digests():
    """What the kernels of this process give of every shape and dtype."""
    return {
        label(shape, dtype): digest(every_result(serial, problem(shape, 1, dtype, offset=100.0)))
        for shape in SHAPES + EMPTY
        for dtype in FLOATS
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages by Linux's number for no access")
def test_kernels_between_pages_that_nobody_may_touch(digests):
    """They have the bits that ordinary arrays get, also where all is stored past the cache."""
    printed = run_python("-m", "tests.processes.guard_pages")
    assert json.loads(printed) == {name: [own] for name, own in digests.items()}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", [serial, threaded])
def test_kernels_hold_all_that_they_call(form, dtype):
    """A helper that was not linked in would be a call of address 0."""
    every_result(form, problem((3, 4, 5), 1, dtype))
    for kernel in form.FORM.values():
        for compiled in kernel.overloads.values():
            functions = compiled.library._get_module_for_linking().functions
            assert not [f.name for f in functions if f.is_declaration and f.name.startswith("_ZN7bnnumba")]


def test_kernels_keep_no_memory():
    """What Numba's run-time system has allocated, it has freed when the results are gone."""
    gc.collect()  # of what other tests have left, the end would be counted without the beginning
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        for shape in SHAPES:
            for form in (serial, threaded):
                every_result(form, problem(shape, 1))
        gc.collect()
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert after.alloc > before.alloc
    assert after.alloc - before.alloc == after.free - before.free


LITTLE_MEMORY = """
import re, resource
import numpy as np
import bnnumba

def used():
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(r"VmSize:\\s+(\\d+)", status.read())[1])

def step():
    layer(x, training=True)
    layer.backward(x)

x = np.random.default_rng(0).standard_normal((4, 2_000_000), np.float32)
layer, twin = (bnnumba.BatchNormalization(momentum=0.5) for _ in range(2))
for each in (layer, twin):
    each(x[:2], training=True)
    each.backward(x[:2])
before = [weight.tobytes() for weight in layer.get_weights()]
twin(x, training=True)
after = [weight.tobytes() for weight in twin.get_weights()]
outcomes = set()
for extra in range(0, 600, 20):
    layer.set_weights([np.frombuffer(weight, np.float32 if k < 2 else float) for k, weight in enumerate(before)])
    resource.setrlimit(resource.RLIMIT_AS, (used() + extra * 2**20, -1))
    try:
        step()
        outcomes.add("done")
    except MemoryError:
        outcomes.add("no memory")
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert [weight.tobytes() for weight in layer.get_weights()] in (before, after)
print(sorted(outcomes))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory in use as Linux tells it")
def test_memory_errors_leave_the_layer_whole():
    """Whatever finds no memory, from the output to a thread's sums, is a MemoryError, and the step may be repeated."""
    assert run_python("-c", LITTLE_MEMORY) == "['done', 'no memory']\n"


@pytest.fixture
def recycling():
    bnnumba.recycle_buffers(64 * MIB)
    yield
    bnnumba.recycle_buffers(0)


def results(p, axis):
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, axis)
    arguments = p.dy, p.x, *moments[:2], p.gamma, axis
    return [
        y,
        bnnumba.normalize(p.x, *moments[:2], p.gamma, p.beta, axis),
        bnnumba.batch_norm_backward(*arguments).dx,
        bnnumba.batch_norm_backward(*arguments, frozen=True).dx,
    ]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("shape", "axis"), [((5000, 67), -1), ((3, 70, 37, 43), 1), ((9, 3, 20_000), 1), ((2**20 + 3, 1), -1)], ids=str
)
def test_nothing_of_a_buffers_past_is_left(shape, axis, dtype, recycling):
    """Every element of a recycled output is written: what it held before, NaN everywhere, is in none."""
    p = problem(shape, axis, dtype)
    bnnumba.recycle_buffers(0)
    expected = results(p, axis)
    bnnumba.recycle_buffers(64 * MIB)
    for _ in range(3):
        found = results(p, axis)
        assert all(same_bits(a, b) for a, b in zip(found, expected, strict=True))
        addresses = {array.ctypes.data for array in found}
        for array in found:
            array.fill(np.nan)
        del array, found
    assert {array.ctypes.data for array in results(p, axis)} == addresses
