"""Batch normalization over the batches of many processes together, by MPI (the extra `mpi`).

Every rank calls its layer with its own part of the batch. A training forward sends one message of each feature's count,
mean and variance, and its backward one of the two sums, log2(ranks) times; see `ranks`. Start programs by
`mpiexec -n 4 python -m mpi4py train.py`: a rank that raises then ends the others too, which would wait for it for ever.
"""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Self

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.functional import Gradients, batch_norm_backward, input_gradient
from bnnumba.layer import BatchNormalization, Saved
from bnnumba.pooling import Moments
from bnnumba.ranks import Call, call_of, exchange, exchange_moments
from bnnumba.weighted import counted

try:
    from mpi4py import MPI
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.mpi needs mpi4py: pip install 'bnnumba[mpi]'") from error

SPINS = 100  # looks for a message, before other processes may have the core
LOG_AFTER = 60.0
# What ranks must have alike, besides what `_call` names.
AGREED = ("axis", "epsilon", "ddof", "activation", "skip_nonfinite", "renorm", "renorm_momentum")

_log = logging.getLogger("bnnumba.mpi")


class SyncBatchNormalization(BatchNormalization):
    """A `BatchNormalization` whose batch is that of all ranks of a communicator together.

        count, mean, var = those of all ranks' x    y = act(gamma * (x - mean)/sqrt(var + epsilon) + beta + residual)
        dx = gamma*rstd * (dresidual - w*(sum(dbeta) + x_hat*sum(dgamma))/count)    sum over all ranks

    Moments, and so the moving statistics, have the same bits on all ranks. Parts of the batch may differ in size, and
    be empty or masked altogether. Inference, and a frozen layer, send nothing.

    Parameters
    ----------
    *arguments, **options
        Those of `BatchNormalization`.
    comm : mpi4py.MPI.Intracomm
        Whose ranks share the batch. Messages go by a private duplicate of it, made at the first training call.
    log_after : real number >= 0
        Seconds after which the logger "bnnumba.mpi" warns that this rank still waits for another, and in which call.

    Attributes
    ----------
    comm : mpi4py.MPI.Intracomm
        Another may be set. It is no part of `get_config` and of files: layers of `from_config`, `load` and the like
        have COMM_WORLD. Copies share it. A layer can be pickled if it is COMM_WORLD or COMM_SELF.
    log_after : float
        No part of `get_config` and of files either.
    dgamma, dbeta : arrays of the feature shape, float64
        This rank's share, sums over its own part, as in PyTorch: the training loop adds them up over the ranks, as it
        does with every other gradient.
    batches_seen : int
        How many batches, each of all ranks together, have moved the moving statistics.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; in any call that exchanges something, a ValueError on all ranks, if they do not
        make the same call of the same layer, with the same feature shape, dtype and options. RuntimeError on all ranks,
        in their next call, if an exception broke off an exchange on one: then its moving statistics may not be theirs.

    Notes
    -----
    All ranks make their layers in the same order, copies and loaded ones too: a layer is told by its number among those
    of its communicator. A layer that one rank alone has gets comm=MPI.COMM_SELF, before it or another exchanges
    something. All ranks make the same training calls, `backward` and `recompute_moving`. That takes the batches of all
    ranks together; each rank has one at least, maybe an empty one.
    """

    _comm: MPI.Intracomm
    _place: Place

    def __init__(
        self, *arguments: Any, comm: MPI.Intracomm = MPI.COMM_WORLD, log_after: float = LOG_AFTER, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.comm, self.log_after = comm, checks.not_negative("log_after", log_after)

    @property
    def comm(self) -> MPI.Intracomm:
        """Whose ranks share the batch."""
        return self._comm

    @comm.setter
    def comm(self, comm: MPI.Intracomm) -> None:
        checks.instance("comm", comm, MPI.Intracomm)
        if "_comm" in vars(self):
            link_of(self._comm).forget(self._place)
        vars(self).update(_comm=comm, _place=link_of(comm).next_place())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make a copy another layer of the communicator."""
        vars(self).update({name: value for name, value in state.items() if name not in ("_comm", "_place")})
        self.comm = state["_comm"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of all but the communicator."""
        other = copy.copy(self)
        own = {name: value for name, value in vars(other).items() if name not in ("_comm", "_place")}
        vars(other).update(copy.deepcopy(own, memo))
        return other

    def _trained_directly(self, *_: Any) -> Array | None:
        return None  # other ranks have their part

    def _moments(self, x: Array, weights: dict[str, Any]) -> Moments:
        part = super()._moments(x, weights)
        _check_one_count(part)
        return self._whole(part, self._call("training call", part.mean.shape, x.dtype.name))

    def _batch_norm(self, x: Array, residual: Array | None, weights: dict[str, Any]) -> tuple[Array, Moments]:
        batch = self._moments(x, weights)
        x = counted(x, batch.count)
        return self._normalize(x, batch.mean, batch.var, self.gamma, self.beta, residual), batch

    def _gradients(self, dy: Array, saved: Saved, gamma: Array | None) -> Gradients[Any, Any]:
        if saved.frozen:
            return super()._gradients(dy, saved, gamma)
        moments = saved.statistics
        x = counted(saved.x, moments.count)
        _, dgamma, dbeta, dresidual = batch_norm_backward(
            *(dy, x, moments.mean, moments.var, gamma, self.axis),
            epsilon=self.epsilon,
            needs_dx=False,
            y=saved.y,
            activation=self.activation,
            residual=True,
        )
        assert dresidual is not None
        call, sums = self._call("backward", dgamma.shape, x.dtype.name), np.stack([dgamma, dbeta])
        with self._during(call) as link:
            of_all = exchange(sums.ravel(), np.add, call, link).reshape(sums.shape)
        dx = input_gradient(
            dresidual, x, moments, gamma, (of_all[0], of_all[1]), self.axis, epsilon=self.epsilon, **saved.weights
        )
        return Gradients(dx, dgamma, dbeta, dresidual if saved.residual else None)

    def _population(self, batches: Iterable[Any], masks: Any, progress: bool) -> tuple[Moments, int]:
        """Number: the most that any rank has."""
        population, number = super()._population(batches, masks, progress)
        _check_one_count(population)
        call = self._call("recompute_moving", population.mean.shape, "any")
        population = self._whole(population, call)
        with self._during(call) as link:
            most = exchange(np.array([float(number)]), np.maximum, call, link)
        return population, int(most[0])

    def _whole(self, part: Moments, call: Call) -> Moments:
        """Moments of all ranks' parts together."""
        with self._during(call) as link:
            return exchange_moments(part, call, link)

    def _during(self, call: Call) -> AbstractContextManager[Link]:
        return link_of(self.comm).during(self.comm, call, self.log_after)

    def _call(self, what: str, features: tuple[int, ...], dtype: str) -> Call:
        """What must be the same on all ranks."""
        options = (*((name, getattr(self, name)) for name in AGREED), ("renorm_clipping", tuple(self._clipping)))
        number = link_of(self.comm).number_of(self._place)
        call = call_of(what, number, ("features", features), ("dtype", dtype), ("momentum", self.momentum), *options)
        return call._replace(step=self.batches_seen)


class Place:
    """A layer's place among those of its communicator."""

    number: int | None = None


class Link:
    """A communicator's private duplicate, on which none of the caller's own messages is sent; see `ranks.Link`.

    One thread at a time uses it, and holds `lock` meanwhile. It is made with the first layer of a communicator, and the
    duplicate at the first exchange, in which all ranks take part.
    """

    renewal = "give these another communicator on all ranks: layer.comm = comm.Dup()"

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.lock, self.broken = threading.Lock(), False
        self._sent: list[MPI.Request] = []  # which hold their messages until these are on their way
        self._layers, self._new = 0, list[Place]()  # of which those without a number yet
        self._private: MPI.Intracomm | None = None
        self._waiting: tuple[str, float] = ("", math.inf)

    def next_place(self) -> Place:
        """Return the place of a new layer."""
        place = Place()
        self._new.append(place)
        return place

    def forget(self, place: Place) -> None:
        """Do not count a layer that gets another communicator, if that is early enough."""
        if place.number is None:
            self._new.remove(place)

    def number_of(self, place: Place) -> int:
        """Return a layer's number, from 1: in the order in which they were made, which is to be the same on all ranks.

        Those that are new get theirs when any layer exchanges something.
        """
        with self.lock:
            while self._new:
                self._layers += 1
                self._new.pop(0).number = self._layers
            assert place.number is not None
            return place.number

    @contextmanager
    def during(self, comm: MPI.Intracomm, call: Call, log_after: float) -> Iterator[Self]:
        """Hold the lock for an exchange of the communicator; warn when an answer is not there after some seconds."""
        with self.lock:
            self._waiting = call.what, log_after
            if self._private is None and not self.broken:
                self.broken = True  # unless this comes to its end
                private, request = comm.Idup()
                self._wait(lambda: request.Test() or None, "all ranks")
                self._private, self.broken = private, False
            yield self

    def tell(self, message: Array, to: int) -> None:
        """Send to a rank, and wait for nothing."""
        self._sent.append(self._duplicate.Isend(message, to))

    def send(self, message: Array, to: int) -> None:
        """Send to a rank."""
        self.tell(message, to)
        self._wait(self._all_sent, f"rank {to}")

    def receive(self, source: int) -> Array:
        """Receive from a rank."""
        status = MPI.Status()
        there = self._wait(lambda: self._duplicate.Improbe(source, 0, status), f"rank {source}")
        message = np.empty(status.Get_count(MPI.DOUBLE))
        there.Recv(message)
        return message

    def swap(self, message: Array, partner: int) -> Array:
        """Send to a rank, and receive from it."""
        self.tell(message, partner)
        other = self.receive(partner)
        self._wait(self._all_sent, f"rank {partner}")
        return other

    def gather(self, text: str) -> list[str]:
        """Return the texts of all ranks."""
        return self._duplicate.allgather(text)

    def free(self) -> None:
        """Free the duplicate, with the communicator."""
        if self._private is not None:
            self._private.Free()

    @property
    def _duplicate(self) -> MPI.Intracomm:
        assert self._private is not None
        return self._private

    def _all_sent(self) -> bool | None:
        while self._sent:
            if not self._sent[-1].Test():
                return None
            self._sent.pop()
        return True

    def _wait(self, poll: Callable[[], Any], for_whom: str) -> Any:
        """Return what `poll` does, when that is not None."""
        text, log_after = self._waiting
        begin, warned, tries = time.monotonic(), False, 0
        while (answer := poll()) is None:
            tries += 1
            if tries > SPINS:  # other ranks may need this core
                waited = time.monotonic() - begin
                time.sleep(0.0 if waited < 1 else 0.001)
                if not warned and waited > log_after:
                    _log.warning("rank %d has waited %g s for %s: %s", self.rank, log_after, for_whom, text)
                    warned = True
        return answer


@cache
def _attribute() -> int:
    """The key under which a communicator keeps its link."""
    return MPI.Comm.Create_keyval(delete_fn=lambda comm, key, link: link.free())  # noqa: ARG005


_making_links = threading.Lock()


def link_of(comm: MPI.Intracomm) -> Link:
    """Return the communicator's link, made at the first use."""
    with _making_links:
        link = comm.Get_attr(_attribute())
        if not isinstance(link, Link):
            link = Link(comm)
            comm.Set_attr(_attribute(), link)
        return link


def _check_one_count(part: Moments) -> None:
    if np.ndim(part.count):
        raise ValueError("a mask or weights of a batch on many ranks must have size 1 along the feature axes")
