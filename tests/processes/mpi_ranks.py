"""Layers on all ranks at once: `mpiexec -n 3 python -m mpi4py -m tests.processes.mpi_ranks [SCENARIO ...]`.

Without a name, all scenarios run. Every rank makes the whole batch, and trains on its part. What comes out is compared
with the oracle of the whole batch, or with one process's layer, which is compared with the oracle elsewhere.
"""

import copy
import logging
import operator
import pickle
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import pytest
from mpi4py import MPI

from bnnumba import BatchNormalization, Moments, population_moments
from bnnumba.mpi import SyncBatchNormalization, link_of
from bnnumba.ranks import call_of, exchange
from tests.tools import bounds, oracle
from tests.tools.problems import problem

WORLD = MPI.COMM_WORLD
RANK, SIZE = WORLD.rank, WORLD.size
LAST = RANK == SIZE - 1


def evenly(rows):
    return np.linspace(0, rows, SIZE + 1).astype(int)


def unevenly(rows):
    return np.array([rows * rank**2 // SIZE**2 for rank in range(SIZE + 1)])


def all_on_the_last(rows):
    return np.array([0] * SIZE + [rows])


def all_on_the_first(rows):
    return np.array([0] + [rows] * SIZE)


class Case(NamedTuple):
    """A batch, how many of its first axis each rank has, the layer's options, and how positions are weighted."""

    shape: tuple
    axis: int | tuple = -1
    dtype: type = np.float32
    cut: object = unevenly
    offset: float = 0.0
    options: dict = {}  # noqa: RUF012
    residual: bool = False
    kind: str | None = None

    @property
    def part(self):
        cuts = self.cut(self.shape[0])
        return slice(cuts[RANK], cuts[RANK + 1])

    def weights(self):
        """Positions of the first half count, on the last rank none."""
        w = np.random.default_rng(5).random(oracle.position_shape(self.shape, self.axis))
        w[self.cut(self.shape[0])[-2] :] = 0.0 if SIZE > 1 else w[self.cut(self.shape[0])[-2] :]
        return w > 0.4 if self.kind == "mask" else np.where(w < 0.3, 0, 7 * w)


CASES = {
    "channels last": Case((40, 5)),
    "channels last, more features than a vector": Case((30, 4, 70), offset=1e6),
    "channels first": Case((9, 4, 5, 5), 1, cut=evenly, offset=-100.0),
    "float64": Case((40, 5), dtype=np.float64, offset=1e6),
    "two axes": Case((9, 3, 4, 6), (1, 3), np.float64, offset=1e6),
    "no axis": Case((20, 3), ()),
    "no features": Case((20, 0)),
    "empty but on the last rank": Case((40, 5), cut=all_on_the_last, offset=1e6),
    "empty but on the first rank": Case((40, 5), dtype=np.float64, cut=all_on_the_first),
    "one row": Case((1, 5), cut=all_on_the_last),
    "all empty": Case((0, 5)),
    "threads": Case((9000, 64), cut=evenly),
    "relu": Case((40, 5), options={"activation": "relu"}),
    "relu and residual": Case((9, 4, 5, 5), 1, options={"activation": "relu"}, residual=True),
    "residual": Case((40, 5), dtype=np.float64, residual=True),
    "without gamma and beta": Case((40, 5), options={"scale": False, "center": False}),
    "mask": Case((40, 6, 5), kind="mask", offset=1e6),
    "mask, channels first": Case((9, 4, 5, 5), 1, np.float64, kind="mask"),
    "weights": Case((40, 5), kind="sample_weight", offset=100.0),
    "weights, relu and residual": Case((40, 5), options={"activation": "relu"}, residual=True, kind="sample_weight"),
    "mask on empty parts": Case((40, 5), cut=all_on_the_first, kind="mask"),
}


def train(case, p, residual, given):
    """The layer after a step, its y, and what `backward` returned."""
    layer = SyncBatchNormalization(case.axis, 0.0, dtype="float64", **case.options)
    layer.build(case.shape)
    for name in ("gamma", "beta"):
        if getattr(layer, name) is not None:
            setattr(layer, name, getattr(p, name))
    part = case.part
    y = layer(p.x[part], training=True, residual=residual if residual is None else residual[part], **given)
    return layer, y, layer.backward(p.dy[part])


def check_case(case):
    p, part = problem(case.shape, case.axis, case.dtype, case.offset), case.part
    residual = problem(case.shape, case.axis, case.dtype, seed=1).x if case.residual else None
    w = None if case.kind is None else case.weights()
    given = {} if w is None else {case.kind: w[part]}
    layer, y, backward = train(case, p, residual, given)
    dx, dresidual = backward if case.residual else (backward, None)

    gamma, beta = layer.gamma, layer.beta
    weights = None if w is None else w.astype(float)
    exact = oracle.batch_norm(p.x, gamma, beta, case.axis, weights=weights)
    moments = Moments(layer.moving_mean, layer.moving_variance, 1)  # the batch's: momentum is 0
    if case.shape[0]:
        bounds.check_moments(case.dtype, moments, exact)
    else:
        assert (moments.mean == 0).all()
        assert (moments.var == 1).all()
    assert layer.batches_seen == bool(case.shape[0])
    own = exact._replace(x_hat=exact.x_hat[part], y=exact.y[part])
    activation = case.options.get("activation")
    bounds.check_fused_y(case.dtype, y, own, activation, None if residual is None else residual[part])

    behind = oracle.behind(p.dy, np.concatenate(WORLD.allgather(y)), activation)
    exact = oracle.backward(behind, p.x, *moments[:2], gamma, case.axis, weights=weights)
    share = None if w is None else weights / weights.sum()
    allowed = np.broadcast_to(bounds.dx(case.dtype, exact, share=share), case.shape)
    bounds.check("dx", dx, exact.dx[part], allowed[part])
    if case.residual:
        np.testing.assert_array_equal(dresidual, behind[part])
    mine = oracle.backward(behind[part], p.x[part], *moments[:2], gamma, case.axis)
    for name, bound in {"dgamma": bounds.dgamma, "dbeta": bounds.dbeta}.items():
        gradient = getattr(layer, name)
        if gradient is not None:
            bounds.check(name, gradient, getattr(mine, name), bound(case.dtype, mine))
            bounds.check(name, WORLD.allreduce(gradient), getattr(exact, name), bound(case.dtype, exact))

    bits = layer.moving_mean.tobytes() + layer.moving_variance.tobytes()
    assert set(WORLD.allgather(bits)) == {bits}, "ranks differ"
    layer, *again = train(case, p, residual, given)
    assert bits == layer.moving_mean.tobytes() + layer.moving_variance.tobytes()
    assert pickle.dumps([y, backward]) == pickle.dumps(again), "runs differ"


# ---- the layer's options, compared with one process's layer

OPTIONS = {
    "renorm": {"renorm": True, "renorm_momentum": 0.7, "momentum": 0.8, "renorm_clipping": {"rmax": 1.5, "dmax": 0.5}},
    "momentum None": {"momentum": None},
    "ddof": {"ddof": 1, "momentum": 0.5},
    "skip_nonfinite": {"skip_nonfinite": True, "momentum": 0.5},
}


def nearly(a, b, dtype=np.float64):
    tolerance = {np.float64: 1e-11, np.float32: 2e-5, np.float16: 4e-3}[dtype]
    np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance)


def check_steps(layer, whole, dtype=np.float64, poisoned=False):
    """Some batches of different sizes, one of them empty."""
    for step, rows in enumerate((30, 7, 0, 31)):
        case = Case((rows, 4, 3), dtype=dtype)
        p = problem(case.shape, -1, np.float64, offset=step, scale=1 + step, seed=step)
        x, dy = p.x.astype(dtype), p.dy.astype(dtype)
        if poisoned and rows == 7:
            x[6, 0, 1] = np.nan
        nearly(layer(x[case.part], training=True), whole(x, training=True)[case.part], dtype)
        nearly(layer.backward(dy[case.part]), whole.backward(dy)[case.part], dtype)
        nearly(WORLD.allreduce(layer.dgamma), whole.dgamma, dtype)
        assert layer.batches_seen == whole.batches_seen
    for one, other in zip(layer.get_weights(), whole.get_weights(), strict=True):
        nearly(one, other, np.float32 if dtype == np.float16 else dtype)


def options():
    for name, given in OPTIONS.items():
        layers = SyncBatchNormalization(**given), BatchNormalization(**given)
        check_steps(*layers, poisoned=name == "skip_nonfinite")


def half():
    check_steps(SyncBatchNormalization(momentum=0.5), BatchNormalization(momentum=0.5), np.float16)


def frozen_after_training():
    layers = SyncBatchNormalization(), BatchNormalization()
    check_steps(*layers)
    for layer in layers:
        layer.trainable = False
    check_steps(*layers)


def population():
    """The first rank has two batches, and the others one each."""
    parts = np.array_split(problem((50, 3), dtype=np.float64, offset=1e6).x, SIZE + 1)
    layer = SyncBatchNormalization()
    layer.recompute_moving(parts[:2] if RANK == 0 else [parts[RANK + 1]])
    exact = population_moments(parts)
    assert (layer.moving_mean == exact.mean).all()
    nearly(layer.moving_variance, exact.var)
    assert layer.batches_seen == 2


def nothing_counts():
    """Masked altogether on all ranks: as in one process, whatever x is."""
    p = problem((SIZE + 4, 3))
    layers = SyncBatchNormalization(activation="relu"), BatchNormalization(activation="relu")
    for layer in layers:
        layer.build(p.x.shape)
        layer.beta[:] = p.beta
    y, expected = (layer(p.x * np.nan, training=True, mask=np.zeros((len(p.x), 1), bool)) for layer in layers)
    assert np.array_equal(y, expected)
    assert not any(layer.backward(p.dy).any() for layer in layers)
    assert not layers[0].dgamma.any()
    assert np.array_equal(layers[0].dbeta, layers[1].dbeta)
    assert layers[0].batches_seen == 0
    assert not layers[0].moving_mean.any()


# ---- processes


def alone():
    """Inference, and what is frozen, sends nothing: only the last rank calls. It has layers of its own, too."""
    layer, x = SyncBatchNormalization(), problem((20, 3)).x
    if LAST:
        mine = SyncBatchNormalization.from_config(SyncBatchNormalization(comm=MPI.COMM_SELF).get_config())
        mine.comm = MPI.COMM_SELF
        nearly(mine(x, training=True), BatchNormalization()(x, training=True), np.float32)
        nearly(layer(x), x / np.sqrt(1.001), np.float32)
        layer.trainable = False
        layer(x, training=True)
        layer.backward(x)
        assert np.isfinite(layer.dgamma).all()


def number(layer):
    return link_of(layer.comm).number_of(layer._place)


@contextmanager
def refused(*words):
    """The same error on all ranks, that names what they called."""
    if SIZE == 1:
        yield
        return
    with pytest.raises(ValueError, match="all ranks must make the same calls of the same layers, made in") as caught:
        yield
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert len(set(WORLD.allgather(said))) == 1


def mixed_calls():
    """Every rank gets the same error, and goes on after it."""
    x, dy = problem((SIZE + 4, 3)).x, problem((SIZE + 4, 3)).dy
    with refused("features=(3,)", "features=(2,)"):
        SyncBatchNormalization()(x[:, : 2 if LAST else 3], training=True)
    with refused("dtype='float32'", "dtype='float64'"):
        SyncBatchNormalization()(x.astype(np.float64) if LAST else x, training=True)
    for name, usual, other in (("epsilon", 0.001, 0.1), ("momentum", 0.99, 0.5), ("activation", None, "relu")):
        with refused(f"{name}={usual!r}", f"{name}={other!r}"):
            SyncBatchNormalization(**({name: other} if LAST else {}))(x, training=True)
    one, other = SyncBatchNormalization(), SyncBatchNormalization()
    for layer in (other, one) if LAST else (one, other):
        with refused(f"training call of layer {number(one)}", f"training call of layer {number(other)}"):
            layer(x, training=True)
            assert SIZE == 1
    one(x, training=True)
    with refused("backward of", "recompute_moving of"):
        one.recompute_moving([x]) if LAST else one.backward(dy)
    layer = copy.copy(one) if LAST else one
    with refused("training call of", "training call of"):
        layer(x, training=True)
    if not LAST:
        SyncBatchNormalization()  # from now on, all have as many again
    check_case(CASES["channels last"])


def threads():
    """Layers of two communicators, and two layers of one whose calls take turns, each in a thread of its own."""
    apart, x = WORLD.Dup(), problem((30, 3)).x
    layers = [SyncBatchNormalization(comm=comm) for comm in (WORLD, apart)]

    def train(layer):
        for _ in range(20):
            layer(x, training=True)
            layer.backward(x)

    with ThreadPoolExecutor() as pool:
        list(pool.map(train, layers))
    assert layers[0].moving_mean.tobytes() == layers[1].moving_mean.tobytes()
    apart.Free()


def one_communicator():
    """Two threads' first calls make its link once; only one rank's calls may take any order."""
    with ThreadPoolExecutor(4) as pool:
        links = list(pool.map(lambda _: link_of(WORLD), range(8)))
    assert all(link is links[0] for link in links)
    x = problem((30, 3)).x
    layers = [SyncBatchNormalization(comm=MPI.COMM_SELF) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda layer: [layer(x, training=True) for _ in range(20)], layers))
    assert len({layer.moving_mean.tobytes() for layer in layers}) == 1


def waits():
    """The rank that waits says so, once in each call, and goes on when the others come."""
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("bnnumba.mpi").addHandler(handler)
    layer, x = SyncBatchNormalization(log_after=0.2), problem((8, 3)).x
    for _ in range(2):
        if LAST:
            time.sleep(1)
        layer(x, training=True)
    said = [record.getMessage() for record in records]
    if SIZE > 1 and not LAST:
        assert len(said) >= 1
        assert said[-1].startswith(f"rank {RANK} has waited 0.2 s for "), said
        assert said[-1].endswith(f": training call of layer {number(layer)}")
    logging.getLogger("bnnumba.mpi").removeHandler(handler)
    assert layer.batches_seen == 2


class LateError(Exception):
    """What an alarm raises."""


def broken_off():
    """An exchange that the last rank leaves while it waits is an error on all ranks, until they get another link."""

    def late(*_):
        raise LateError

    x, apart = problem((SIZE + 4, 3)).x, WORLD.Dup()
    layer = SyncBatchNormalization(comm=apart, momentum=0.5)
    layer(x, training=True)
    if LAST and SIZE > 1:
        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(LateError):
            layer(x, training=True)
        signal.signal(signal.SIGALRM, before)
        assert layer.batches_seen == 1
    else:
        time.sleep(1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="was broken off") if SIZE > 1 else nullcontext():
            for _ in range(3):  # the others may come to the end of one
                layer(x, training=True)
    other = WORLD.Dup()
    layer.comm = other
    again = SyncBatchNormalization(comm=other, momentum=0.5)
    again(x, training=True)
    assert len(set(WORLD.allgather(again.moving_mean.tobytes()))) == 1
    other.Free()


def interrupted_behind():
    """An exception after the exchange leaves the last rank a batch behind: that is an error on all ranks, too."""
    x, layer = problem((SIZE + 4, 3)).x, SyncBatchNormalization(momentum=0.5)
    layer(x, training=True)
    if LAST:
        normalize, layer._normalize = layer._normalize, None
        with pytest.raises(TypeError):
            layer(x, training=True)
        layer._normalize = normalize
    else:
        layer(x, training=True)
    with refused("batches_seen=2", "batches_seen=1"):
        layer(x, training=True)
    layer.batches_seen = 2
    layer(x, training=True)


def comm_is_checked():
    layer = SyncBatchNormalization()
    with pytest.raises(TypeError, match="comm must be of class Intracomm, got str"):
        layer.comm = "world"
    with pytest.raises(ValueError, match="log_after must be"):
        SyncBatchNormalization(log_after=-1.0)
    assert layer.comm == WORLD


def count_overflows():
    """Finite on each rank, but not together: refused on all ranks, in words of the ranks."""
    layer, x = SyncBatchNormalization(), problem((4, 3)).x
    words = "the counts of all ranks must have a finite sum, got inf: scale sample_weight down, by one factor"
    with pytest.raises(ValueError, match=words) if SIZE > 1 else nullcontext(), np.errstate(over="ignore"):
        layer(x, training=True, sample_weight=np.full((4, 1), 3e307))
    assert layer.batches_seen == (SIZE == 1)


def own_messages():
    """A message that waits is left alone; a part of the ranks trains on its own."""
    waiting = WORLD.isend("mine", (RANK + 1) % SIZE)
    check_case(CASES["float64"])
    half = WORLD.Split(RANK % 2)
    layer = SyncBatchNormalization(momentum=0.0, comm=half)
    layer(np.full((3, 2), float(RANK)), training=True)
    nearly(layer.moving_mean, np.full(2, np.mean(half.allgather(RANK))))
    assert WORLD.recv(source=(RANK - 1) % SIZE) == "mine"
    waiting.wait()
    half.Free()


def copies():
    layer = SyncBatchNormalization(momentum=0.5)
    check_steps(layer, BatchNormalization(momentum=0.5))
    pickled = pickle.loads(pickle.dumps(layer))
    loaded = SyncBatchNormalization.from_config(layer.get_config())
    assert pickled.comm == loaded.comm == WORLD
    apart = WORLD.Dup()
    layer.comm = apart
    copied = copy.deepcopy(layer)
    assert copied.comm is apart
    assert not np.shares_memory(copied.gamma, layer.gamma)
    x = problem((20, 3)).x
    for each in (pickled, copied):
        each(x, training=True)
    assert pickled.moving_mean.tobytes() == copied.moving_mean.tobytes()
    apart.Free()


def together(own, merge):
    call = call_of("test", 0)
    with link_of(WORLD).during(WORLD, call, 60.0) as link:
        return exchange(own, merge, call, link)


def tree():
    """Merged are neighbours only, in the order of ranks, and no more often in a row than is said."""

    def merge(a, b):
        assert a[1] + 1 == b[0]
        return np.array([a[0], b[1], max(a[2], b[2]) + 1])

    for _ in range(3):
        first, last, depth = together(np.array([RANK, RANK, 0.0]), merge)
        assert (first, last) == (0, SIZE - 1)
        assert depth == np.ceil(np.log2(SIZE))
    total = together(np.random.default_rng(RANK).normal(size=1000), operator.add)
    assert len(set(WORLD.allgather(total.tobytes()))) == 1
    nearly(total, sum(np.random.default_rng(rank).normal(size=1000) for rank in range(SIZE)))


def raises():
    """Only on the last rank; the others would wait for it."""
    assert RANK < SIZE - 1, "the last rank's own error"
    SyncBatchNormalization()(np.ones((4, 3)), training=True)


CHECKS = (
    options,
    half,
    frozen_after_training,
    population,
    nothing_counts,
    alone,
    mixed_calls,
    threads,
    one_communicator,
    waits,
    broken_off,
    interrupted_behind,
    comm_is_checked,
    count_overflows,
    own_messages,
    copies,
    tree,
)
SCENARIOS = {each.__name__: each for each in (*CHECKS, raises)}

if __name__ == "__main__":
    names = sys.argv[1:]
    for name, case in CASES.items() if not names else ():
        print(name, flush=True)  # the last that is printed is the one that failed
        check_case(case)
    for name in names or [check.__name__ for check in CHECKS]:
        print(name, flush=True)
        SCENARIOS[name]()
    WORLD.Barrier()
    print(f"rank {RANK} of {SIZE} is right", flush=True)
