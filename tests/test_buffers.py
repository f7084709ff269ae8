"""Recycled buffers: when memory is reused, when it must not be, how much is kept."""

import ctypes
import gc
import itertools
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import bnnumba
from bnnumba import buffers
from tests.tools.problems import LAYOUTS
from tests.tools.subprocesses import ROOT

MIB = 2**20
FLOAT = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def recycling():
    """Every test starts with an empty pool of 64 MiB, and leaves the interpreter as it was."""
    buffers.recycle_buffers(64 * MIB)
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    yield
    buffers.recycle_buffers(0)
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.enable()


@pytest.fixture
def allocated():
    """A function: how many MiB are allocated now, more than at the test's start."""
    gc.collect()
    tracemalloc.start()
    yield lambda: round(tracemalloc.get_traced_memory()[0] / MIB, 1)
    tracemalloc.stop()


def new(mib=1.0):
    return buffers.empty_like(np.broadcast_to(FLOAT.type(0), int(mib * MIB) // 4), FLOAT)


def address(array):
    return array.ctypes.data


def reused(wanted):
    """Whether new arrays come to lie at an address, as many as may be kept."""
    arrays = [new() for _ in range(8)]
    return wanted in map(address, arrays)


# ---- reuse, and none while anything can see the memory


def test_memory_is_reused_when_its_array_has_died(allocated):
    y = new()
    y[:] = 7
    where = address(y)
    del y
    assert allocated() == 1
    y = new()
    assert address(y) == where
    assert (y == 7).all()
    assert allocated() == 1


def test_memory_is_reused_for_the_same_number_of_bytes_only():
    y = new(2)
    where = address(y)
    del y
    others = [new(1), new(1.5), new(3)]
    assert where not in map(address, others)
    y = buffers.empty_like(np.empty((512, 512)), np.dtype(np.float64))
    assert address(y) == where


class Subclass(np.ndarray):
    pass


class Foreign:
    """What a library may take of an array: its interface, and a reference to it."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def in_a_cycle(array):
    cycle = [array]
    cycle.append(cycle)


class Waiting:
    """A thread that has the array on its stack until `__del__`."""

    def __init__(self, array):
        self.go = threading.Event()
        self.thread = threading.Thread(target=lambda array, go: go.wait(), args=(array, self.go))
        self.thread.start()

    def __del__(self):
        self.go.set()
        self.thread.join()


HOLDERS = {
    "view": lambda y: y.view(),
    "slice": lambda y: y[::2],
    "one element": lambda y: y[-1:],
    "transpose": lambda y: y.reshape(512, 512).T,
    "other dtype": lambda y: y.view(np.uint8),
    "subclass": lambda y: y.view(Subclass),
    "view of a subclass": lambda y: y.view(Subclass)[1:].view(np.ndarray),
    "memoryview": memoryview,
    "frombuffer": np.frombuffer,
    "ndarray over a buffer": lambda y: np.ndarray(4, FLOAT, y),
    "asarray": np.asarray,
    "dlpack": np.from_dlpack,
    "array interface": lambda y: np.asarray(Foreign(y))[3:],
    "ctypes array": (ctypes.c_float * 4).from_buffer,
    "ctypes pointer": lambda y: y.ctypes.data_as(ctypes.c_void_p),
    "flat iterator": lambda y: y.flat,
    "base": lambda y: y.base,
    "base of the base": lambda y: y.base.base,
    "last base": lambda y: np.asarray(y.base.base),
    "cycle": in_a_cycle,
    "another thread": Waiting,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_is_not_reused_while_it_can_be_seen(holder):
    gc.disable()  # else the cycle might die sooner
    y = new()
    where = address(y)
    held = HOLDERS[holder](y)
    del y
    assert not reused(where)
    del held
    gc.enable()
    gc.collect()
    assert reused(where)


@pytest.mark.parametrize("part", [lambda y: y, lambda y: y.base.base], ids=["array", "last base"])
def test_memory_is_not_reused_when_a_finalizer_resurrects_it(part):
    saved = []

    class Phoenix:
        def __init__(self, array):
            self.held = part(array)
            self.cycle = self

        def __del__(self):
            saved.append(np.asarray(self.held))

    y = new()
    where = address(y)
    Phoenix(y)
    del y
    gc.collect()
    assert address(saved[0]) == where
    assert not reused(where)
    saved.clear()
    gc.collect()
    assert reused(where)


def test_a_pickle_is_a_copy():
    y = new()
    y[:] = 7
    where = address(y)
    y = pickle.loads(pickle.dumps(y))
    assert reused(where)
    assert (y == 7).all()


# ---- how much is kept


def test_kept_bytes_are_bounded(allocated):
    arrays = [new() for _ in range(10)]
    buffers.recycle_buffers(3 * MIB)
    assert allocated() == 10
    while arrays:
        del arrays[0]
        assert allocated() <= len(arrays) + 3
    assert allocated() == 3


def test_an_array_larger_than_the_bound_is_freed_and_drives_nothing_out(allocated):
    buffers.recycle_buffers(3 * MIB)
    arrays = [new(1), new(2), new(3.1)]
    while arrays:
        del arrays[0]
    assert allocated() == 3


def test_the_oldest_is_driven_out(allocated):
    buffers.recycle_buffers(5 * MIB)
    arrays = [new(1), new(1.5), new(2), new(1.2)]
    addresses = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    assert allocated() == 4.7
    arrays = [new(1.5), new(2), new(1.2)]
    assert [address(array) for array in arrays] == addresses[1:]
    assert allocated() == 4.7


def test_a_lower_bound_frees_the_oldest_at_once(allocated):
    arrays = [new(1), new(1.5), new(2)]
    last = address(arrays[2])
    while arrays:
        del arrays[0]
    assert allocated() == 4.5
    buffers.recycle_buffers(2 * MIB)
    assert allocated() == 2
    assert address(new(2)) == last


def test_zero_frees_all_that_is_kept_and_no_array_that_lives(allocated):
    kept, alive = new(2), new(3)
    alive[:] = 7
    del kept
    assert allocated() == 5
    buffers.recycle_buffers(0)
    assert allocated() == 3
    assert (alive == 7).all()
    del alive
    assert allocated() == 0
    assert new().base is None


@pytest.fixture
def compiled():
    """What compiles is neither counted, nor slowed down by counting."""
    bnnumba.normalize(np.zeros((4096, 64), FLOAT), np.zeros(64), np.ones(64))


def test_memory_is_bounded_over_many_calls(compiled, allocated):
    """Of outputs in three sizes, the last few of which are kept alive; all repeats after 12 calls."""
    buffers.recycle_buffers(5 * MIB)
    inputs = [np.zeros((rows * 4096, 64), FLOAT) for rows in (1, 2, 3)]
    mean, var, alive, most = np.zeros(64), np.ones(64), [], 0
    inputs_and_such = allocated()
    for call in range(600):
        del alive[: max(0, len(alive) - call % 4)]
        alive.append(bnnumba.normalize(inputs[call % 3], mean, var))
        most = max(most, allocated() - inputs_and_such - sum(array.nbytes for array in alive) / MIB)
    assert 0 < most <= 5.1


# ---- the arrays


@pytest.mark.parametrize("extra", [0, 1, 3, 17])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_start_at_a_cache_line(dtype, extra):
    for _ in range(2):
        arrays = [buffers.empty_like(np.empty(MIB + extra, dtype), np.dtype(dtype)) for _ in range(3)]
        assert [address(array) % 64 for array in arrays] == [0, 0, 0]
        del arrays


def check_like_numpys(x):
    dtype = x.dtype.newbyteorder("=")
    y, expected = buffers.empty_like(x, dtype), np.empty_like(x, dtype, subok=False)
    assert type(y) is np.ndarray
    assert y.dtype is dtype
    assert y.shape == x.shape
    longer = [axis for axis in range(x.ndim) if x.shape[axis] > 1]  # other axes have no place in memory
    assert [y.strides[axis] for axis in longer] == [expected.strides[axis] for axis in longer]
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "ALIGNED", "WRITEABLE"):
        assert y.flags[flag] == expected.flags[flag]
    return y


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_order_of_every_layout(layout):
    assert check_like_numpys(LAYOUTS[layout](np.zeros((16, 32, 20, 30), np.float32))).base is not None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_memory_order_of_every_permutation(order):
    for shape in ((8, 64, 20, 30), (1, 4096, 1, 80), (512, 1, 600, 1)):
        assert check_like_numpys(np.zeros(shape, np.float32).transpose(order)).base is not None


def test_memory_order_of_broadcast_arrays():
    check_like_numpys(np.broadcast_to(np.zeros((600, 1), np.float32), (3, 600, 800)))
    check_like_numpys(np.broadcast_to(np.zeros((3, 1, 1), np.float32), (3, 600, 800)).T)


def test_small_arrays_are_numpys():
    for shape in ((), (0,), (10**6, 0, 10**6), (MIB // 4 - 1,)):
        y = check_like_numpys(np.zeros(shape, np.float32).view(Subclass))
        assert y.flags.owndata
    assert check_like_numpys(np.zeros(MIB // 4, np.float32).view(Subclass)).base is not None


def test_the_writeable_flag_may_be_set_and_reset():
    y = new()
    y.flags.writeable = False
    y.flags.writeable = True
    y[:] = 1


# ---- threads, garbage collection, processes


def test_threads_never_share_memory(allocated):
    failures = []

    def work(name):
        alive = []
        for turn in range(1000):
            array = new(1 + turn % 3 / 8)
            array[::997] = mark = 1000 * name + turn
            alive.append((array, mark))
            if len(alive) > turn % 5:
                array, mark = alive.pop(0)
                if (array[::997] != mark).any():
                    failures.append((name, turn))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for bound in itertools.cycle([0, 3, 8, 64]):
        buffers.recycle_buffers(bound * MIB)
        threads[0].join(0.01)
        if not any(thread.is_alive() for thread in threads):
            break
    assert not failures
    buffers.recycle_buffers(5 * MIB)
    assert allocated() < 6  # and what threads leave
    buffers.recycle_buffers(0)
    assert allocated() < 1


def test_collections_inside_the_pool(allocated):
    """With a threshold of 1, the collector runs, and loans end, wherever the pool makes an object."""
    buffers.recycle_buffers(5 * MIB)
    gc.set_threshold(1)
    alive = []
    for turn in range(300):
        array = new(1 + turn % 3 / 8)
        array[::997] = turn
        alive.append((array, turn))
        in_a_cycle(new(1 + turn % 2 / 8))
        if len(alive) > 3:
            array, mark = alive.pop(0)
            assert (array[::997] == mark).all()
    del array, alive
    gc.collect()
    assert 0 < allocated() <= 5


def run(script):
    """A script in a process of its own, which must succeed and have nothing to complain of; what it printed."""
    script = "import numpy as np\nfrom bnnumba import buffers\nx = np.zeros(2**18, np.float32)\n" + script
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_off_until_asked_for():
    assert run("print(buffers.empty_like(x, x.dtype).base)") == "None\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_go_on():
    script = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: it is what is tested
buffers.recycle_buffers(2**23)
sys.setswitchinterval(1e-6)
stop = threading.Event()

def work():
    while not stop.is_set():
        buffers.empty_like(x, x.dtype)

threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
mine = buffers.empty_like(x, x.dtype)
mine[:] = 1
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # rather than hang
        address = mine.ctypes.data
        others = [buffers.empty_like(x, x.dtype) for _ in range(20)]
        ok = address not in [other.ctypes.data for other in others]
        mine[:] = 2
        del mine
        ok &= buffers.empty_like(x, x.dtype).ctypes.data == address
        os._exit(0 if ok else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
print(set(codes), set(mine.tolist()))
"""
    assert run(script) == "{0} {1.0}\n"


@pytest.mark.parametrize("turn", range(5))
def test_the_interpreter_exits_silently(turn):
    """With arrays alive in globals, in cycles, in a class, in exit functions and in threads that do not stop."""
    script = """
import atexit, sys, threading
buffers.recycle_buffers(2**23)
alive = [buffers.empty_like(x, x.dtype) for _ in range(30)]
alive.append(alive)
class Holder: array = buffers.empty_like(x, x.dtype)
np.held = buffers.empty_like(x, x.dtype)  # in a module that outlives this one
atexit.register(lambda array: buffers.empty_like(x, x.dtype), alive[0].view())

def work():
    while True:
        buffers.empty_like(x, x.dtype)

sys.setswitchinterval(1e-6)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
print("done")
"""
    assert run(script) == "done\n"


# ---- errors


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (True, TypeError, "max_bytes must be an int, got bool True"),
        (1e9, TypeError, r"max_bytes must be an int, got float 1000000000\.0"),
        ("1 GB", TypeError, "max_bytes must be an int, got str '1 GB'"),
        (None, TypeError, "max_bytes must be an int, got NoneType None"),
        (np.array(1), TypeError, "max_bytes must be an int, got ndarray"),
        (-1, ValueError, "max_bytes must be >= 0, got -1"),
    ],
)
def test_bad_bounds(value, error, message):
    with pytest.raises(error, match=message):
        buffers.recycle_buffers(value)
    assert new().base is not None


def test_numpys_ints_are_ints():
    buffers.recycle_buffers(np.int64(0))
    assert new().base is None
