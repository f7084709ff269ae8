"""Batch normalization over the batches of many processes together, by MPI (the extra `mpi`).

Every rank calls its layer with its own part of the batch. A training forward sends one message of each feature's count,
mean and variance, and its backward one of the two sums, log2(ranks) times; see `exchange`. Start programs by
`mpiexec -n 4 python -m mpi4py train.py`: a rank that raises then ends the others too, which would wait for it for ever.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Self

import numpy as np

from bnnumba import checks
from bnnumba._types import Array
from bnnumba.functional import Gradients, batch_norm_backward, input_gradient
from bnnumba.layer import BatchNormalization, Saved
from bnnumba.pooling import Moments, pooled_rows, rows_of, spread_of
from bnnumba.weighted import counted

try:
    from mpi4py import MPI
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("bnnumba.mpi needs mpi4py: pip install 'bnnumba[mpi]'") from error

Merge = Callable[[Array, Array], Array]


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

    Attributes
    ----------
    comm : mpi4py.MPI.Intracomm
        It is no part of `get_config` and of files: layers of `from_config`, `load` and the like have COMM_WORLD. Copies
        share it. A layer can be pickled if it is COMM_WORLD or COMM_SELF.
    dgamma, dbeta : arrays of the feature shape, float64
        This rank's share, sums over its own part, as in PyTorch: the training loop adds them up over the ranks, as it
        does with every other gradient.
    batches_seen : int
        How many batches, each of all ranks together, have moved the moving statistics.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above; at the first training call, on all ranks, if their feature shapes differ.

    Notes
    -----
    All ranks make their layers alike, and make the same training calls, `backward` and `recompute_moving`, in the same
    order. `recompute_moving` takes the batches of all ranks together; each rank has one at least, maybe an empty one.
    """

    def __init__(self, *arguments: Any, comm: MPI.Intracomm = MPI.COMM_WORLD, **options: Any) -> None:
        super().__init__(*arguments, **options)
        checks.instance("comm", comm, MPI.Intracomm)
        self.comm = comm
        self._agreed = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of all but the communicator."""
        other = copy.copy(self)
        own = {name: value for name, value in vars(other).items() if name != "comm"}
        vars(other).update(copy.deepcopy(own, memo))
        return other

    def _moments(self, x: Array, weights: dict[str, Any]) -> Moments:
        return self._whole(super()._moments(x, weights))

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
        of_all = exchange(np.stack([dgamma, dbeta]), np.add, _private(self.comm))
        dx = input_gradient(
            dresidual, x, moments, gamma, (of_all[0], of_all[1]), self.axis, epsilon=self.epsilon, **saved.weights
        )
        return Gradients(dx, dgamma, dbeta, dresidual if saved.residual else None)

    def _population(self, batches: Iterable[Array], progress: bool) -> tuple[Moments, int]:
        """Number: the most that any rank has."""
        population, number = super()._population(batches, progress)
        return self._whole(population), _private(self.comm).allreduce(number, MPI.MAX)

    def _whole(self, part: Moments) -> Moments:
        """Moments of all ranks' parts together."""
        comm = _private(self.comm)
        if not self._agreed:
            _check_features(comm.allgather(part.mean.shape))
            self._agreed = True
        packed = np.concatenate([[part.count], rows_of(part.spread).ravel()])
        whole = exchange(packed, merged_moments, comm)
        count = float(whole[0])
        _check_count(count)
        return Moments.of(spread_of(whole[1:].reshape(4, -1), part.mean.shape), count)


def exchange(own: Array, merge: Merge, comm: MPI.Intracomm) -> Array:
    """Merge the arrays of all ranks, which are float64 and of one shape, into one with the same bits on every rank.

    In step k = 0, 1, ... each rank swaps what it has with the rank 2**k away, and both merge the same two, the lower
    ranks' first: a fixed tree in the order of ranks, of log2(ranks) steps. Where the number of ranks is no power of
    two, as many of the first ranks as there are too many hand theirs to the rank before them, and get the result back.
    """
    steps = comm.size.bit_length() - 1
    extra = comm.size - 2**steps
    other = np.empty_like(own)
    if comm.rank < 2 * extra:
        if comm.rank % 2:
            comm.Send(own, comm.rank - 1)
            comm.Recv(other, comm.rank - 1)
            return other
        comm.Recv(other, comm.rank + 1)
        own = merge(own, other)
    place = comm.rank // 2 if comm.rank < 2 * extra else comm.rank - extra
    for step in range(steps):
        beside = place ^ 2**step
        partner = 2 * beside if beside < extra else beside + extra
        comm.Sendrecv(own, partner, recvbuf=other, source=partner)
        own = merge(own, other) if place < beside else merge(other, own)
    if comm.rank < 2 * extra:
        comm.Send(own, comm.rank + 1)
    return own


def merged_moments(lower: Array, higher: Array) -> Array:
    """Pool the moments of two parts, each a count, followed by four rows of features."""
    rows = pooled_rows(lower[0], lower[1:].reshape(4, -1), higher[0], higher[1:].reshape(4, -1))
    return np.concatenate([lower[:1] + higher[:1], rows.ravel()])


@cache
def _attribute() -> int:
    """The key under which a communicator keeps its private duplicate, which is freed with it."""
    return MPI.Comm.Create_keyval(delete_fn=lambda comm, key, private: private.Free())  # noqa: ARG005


def _private(comm: MPI.Intracomm) -> MPI.Intracomm:
    """The communicator's duplicate, on which no message of the caller's own is sent; made at the first use."""
    private = comm.Get_attr(_attribute())
    if not isinstance(private, MPI.Intracomm):
        private = comm.Dup()
        comm.Set_attr(_attribute(), private)
    return private


def _check_features(shapes: list[tuple[int, ...]]) -> None:
    """Refuse layers whose feature shapes differ from rank to rank."""
    for rank, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"all ranks must have the feature shape of rank 0, {shapes[0]}, got {shape} on rank {rank}"
            )


def _check_count(count: float) -> None:
    """Refuse weights that are finite on every rank, but too large together."""
    if not math.isfinite(count):
        raise ValueError(
            f"the counts of all ranks must have a finite sum, got {count}: "
            "scale sample_weight down, by one factor on every rank"
        )
