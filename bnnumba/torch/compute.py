"""Batch normalization of tensors, computed. Axis 1 has the features.

statistics are mean, var and beta, as (3, features) in float64. dgamma and dbeta have gamma's dtype, or float64 without
one.
"""

import torch
from torch import Tensor

from bnnumba import checks, second
from bnnumba.activations import activation_of
from bnnumba.forms import THREADED_BYTES, THREADED_NORMALIZE_BYTES, run_either
from bnnumba.outputs import write
from bnnumba.torch.addresses import Step
from bnnumba.torch.checks import counter_tensor, running_pair, statistics_tensor
from bnnumba.torch.kernels import BACKWARD_AT, BATCH_NORM_AT, BEHIND_AT, move_at
from bnnumba.torch.memory import Features, address, array_of, dense, dense_like, features, layout_of, new, zero_of
from bnnumba.torch.registry import within_threads

Moving = tuple[Tensor, Tensor, Tensor | None, float | None]  # running mean and var, num_batches_tracked, momentum
Copies = list[tuple[Tensor | None, Tensor | None]]


@within_threads
def forward(
    x: Tensor,
    residual: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    epsilon: float,
    activation: str = "",
    moving: Moving | None = None,
    skip_nonfinite: bool = False,
    /,
) -> tuple[Tensor, Tensor]:
    """Return y and the statistics that made it, with mean and var, or where these are None the batch's own.

    What is moving counts the batch, and moves towards its statistics, but for features that `move` is to skip.
    """
    if moving is not None and skip_nonfinite:
        results: tuple[Tensor, Tensor] = forward(x, residual, gamma, beta, mean, var, epsilon, activation)
        running_mean, running_var, batches, momentum = moving
        count = x.numel() // max(x.shape[1], 1)
        move(running_mean, running_var, batches, results[1], count, momentum, skip_nonfinite)
        return results
    zero, (order, shape), epsilon = zero_of("input", x), layout_of(x), checks.epsilon(epsilon)
    channels, given = shape[1], mean is not None and var is not None
    data, y, statistics = dense(x, order), new(x, order), x.new_empty((3, channels), dtype=torch.float64)
    if residual is not None:
        residual = dense_like("residual", residual, x, order)
    gamma, *scale = features("weight", gamma, channels)
    beta, *offset = features("bias", beta, channels)
    if moving is not None:
        mean, var, *_ = moving
    (running_mean, *mean_at), (running_var, *var_at) = _running(mean, var, channels, moving is not None)
    step, copies = (None, []) if moving is None else _step(*moving, running_mean, running_var)
    added = None if residual is None else address("residual", residual)
    act = activation_of(activation or None)
    run_either(
        *BATCH_NORM_AT,
        x.nbytes < (THREADED_NORMALIZE_BYTES if given else THREADED_BYTES),
        (
            zero,
            shape,
            (address("input", data), added, y.data_ptr(), statistics.data_ptr()),
            (*scale, *offset, epsilon),
            (*mean_at, *var_at),
            given or None,
            step,
            act,
        ),
        (x.dtype, residual is None, given, step is None, type(act)),
    )
    _write_back(copies)
    return y, statistics


@within_threads
def backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor | None,
    statistics: Tensor,
    gamma: Tensor | None,
    epsilon: float,
    activation: str,
    frozen: bool,
    needs_dx: bool,
    needs_dresidual: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """Return dx, dgamma, dbeta and dresidual; None, where not needed.

    y is what the activation gave; or None, and the training backward, with dx at any rate, makes it again.
    """
    needs_dx = needs_dx or (activation != "" and y is None)
    zero, (order, shape), epsilon = zero_of("x", x), layout_of(x), checks.epsilon(epsilon)
    channels, data, dy = shape[1], dense(x, order), dense_like("dy", dy, x, order)
    if y is not None:
        y = dense_like("y", y, x, order)
    statistics_tensor(statistics, channels, torch.float64)
    weight, *scale = features("weight", gamma, channels)
    like = statistics[0] if weight is None else weight
    dgamma, dbeta = torch.empty_like(like), torch.empty_like(like)
    dx, dresidual = new(x, order) if needs_dx else None, new(x, order) if needs_dresidual else None
    kept, act = None if y is None else address("y", y), activation_of(activation or None)
    run_either(
        *BACKWARD_AT,
        x.nbytes < THREADED_BYTES,
        (
            zero,
            shape,
            (address("dy", dy), kept, address("x", data), address("statistics", statistics)),
            (*scale, epsilon),
            frozen or None,
            act,
            (None if dx is None else dx.data_ptr(), None if dresidual is None else dresidual.data_ptr()),
            (dgamma.data_ptr(), dbeta.data_ptr(), like.dtype is torch.float64),
        ),
        (x.dtype, y is None, frozen, type(act), needs_dx, needs_dresidual),
    )
    if gamma is not None and gamma.dtype is not like.dtype:
        dgamma, dbeta = dgamma.to(gamma.dtype), dbeta.to(gamma.dtype)
    return dx, dgamma, dbeta, dresidual


@within_threads
def double_backward(
    dy: Tensor,
    x: Tensor,
    statistics: Tensor,
    gamma: Tensor | None,
    ddx: Tensor | None,
    ddgamma: Tensor | None,
    ddbeta: Tensor | None,
    epsilon: float,
    frozen: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ddy, dx and dgamma, of which there are no derivatives."""
    ddy, dx, dgamma = second.batch_norm_double_backward(
        *(array_of(ddx), array_of(ddgamma), array_of(ddbeta), array_of(dy), array_of(x)),
        *(array_of(statistics[0]), array_of(statistics[1]), array_of(gamma), 1),
        epsilon=epsilon,
        frozen=frozen,
    )
    order = layout_of(x)[0]
    ddy, dx = (new(x, order).copy_(torch.from_numpy(each)) for each in (ddy, dx))
    return ddy, dx, torch.from_numpy(dgamma)


@within_threads
def behind(dy: Tensor, y: Tensor, activation: str) -> Tensor:
    """Return dy behind the activation that gave y."""
    zero, (order, shape) = zero_of("y", y), layout_of(y)
    dy, data, dresidual = dense_like("dy", dy, y, order), dense(y, order), new(y, order)
    act = activation_of(activation or None)
    arguments = zero, shape, address("dy", dy), address("y", data), act, dresidual.data_ptr()
    run_either(*BEHIND_AT, y.nbytes < THREADED_NORMALIZE_BYTES, arguments, (y.dtype, type(act)))
    return dresidual


def move(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
    skip_nonfinite: bool = False,
) -> None:
    """Count a batch, and move the running statistics towards its own; momentum None is 1/batches, or 0 uncounted.

    skip_nonfinite: leave those of features as they were whose mean or var is NaN or infinite.
    """
    channels = statistics.shape[-1]
    statistics_tensor(statistics, channels, torch.float64)
    if skip_nonfinite and not statistics[:2].isfinite().all():
        _move_finite(running_mean, running_var, batches, statistics, count, momentum)
        return
    (mean, *mean_at), (var, *var_at) = _running(running_mean, running_var, channels, True)
    step, copies = _step(running_mean, running_var, batches, momentum, mean, var)
    move_at(address("statistics", statistics), channels, count, (*mean_at, *var_at), step)
    _write_back(copies)


def _move_finite(
    running_mean: Tensor,
    running_var: Tensor,
    batches: Tensor | None,
    statistics: Tensor,
    count: int,
    momentum: float | None,
) -> None:
    """Do as `move`, for the features whose mean and var are finite."""
    own, finite = (running_mean, running_var, batches), statistics[:2].isfinite().all(0)
    mean, var, counted = (None if each is None else each.clone() for each in own)
    move(mean, var, counted, statistics, count, momentum)
    moved = torch.where(finite, mean, running_mean), torch.where(finite, var, running_var), counted
    _write_back([(each, new) for each, new in zip(own, moved, strict=True) if each is not None])


def _running(mean: Tensor | None, var: Tensor | None, channels: int, moving: bool) -> tuple[Features, Features]:
    """Running statistics as kernels take them; where they are moving, both themselves or both copies."""
    if mean is None or var is None:
        running_pair(mean, var, moving)
    found = features("running_mean", mean, channels), features("running_var", var, channels)
    themselves = found[0][0] is mean, found[1][0] is var
    if moving and any(themselves) and not all(themselves):
        assert mean is not None
        assert var is not None
        return features("running_mean", mean.clone(), channels), features("running_var", var.clone(), channels)
    return found


def _step(
    mean: Tensor | None,
    var: Tensor | None,
    batches: Tensor | None,
    momentum: float | None,
    moved_mean: Tensor | None,
    moved_var: Tensor | None,
) -> tuple[Step, Copies]:
    """Return the step of what moves; and who gets which copy, where what moves are copies in memory that kernels take.

    Then a copy is counted as well, so that all change at once, or with an interrupt none.
    """
    if batches is not None:
        counter_tensor("num_batches_tracked", batches, torch.int64)
    counted = batches
    if batches is not None and not (moved_mean is mean and moved_var is var):
        counted = batches.clone()
    counter = 0 if counted is None else address("num_batches_tracked", counted)
    step = counter, momentum is None, 0.0 if momentum is None else float(momentum)
    pairs = (mean, moved_mean), (var, moved_var), (batches, counted)
    copies = [(own, moved) for own, moved in pairs if own is not moved]
    _write_back([(own, own.clone()) for own, _ in copies if own is not None])  # an error before anything has changed
    return step, copies


def _write_back(copies: Copies) -> None:
    """Give tensors what their copies hold."""
    write([(Tensor.copy_, own, moved) for own, moved in copies])
