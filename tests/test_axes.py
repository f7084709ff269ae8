"""Ranks, feature axes and memory layouts: the values, the order of the result, and what is copied."""

import itertools
import tracemalloc

import numpy as np
import pytest

import bnnumba
from bnnumba.axes import canonical_view
from tests.tools import bounds, oracle
from tests.tools.problems import LAYOUTS, fortran, problem, same_bits

SHAPE = (2, 3, 4, 5)
EVERY_AXIS = [axes for n in range(5) for axes in itertools.combinations(range(4), n)]


def check_step(x, dy, gamma, beta, feature_axis):
    """A whole training step against the oracle; the results must have x's memory order."""
    y, moments = bnnumba.batch_norm(x, gamma, beta, feature_axis)
    exact = oracle.batch_norm(x, gamma, beta, feature_axis)
    bounds.check_moments(x.dtype, moments, exact)
    bounds.check_y(x.dtype, y, exact)
    assert moments.mean.shape == moments.var.shape == oracle.feature_shape(x.shape, feature_axis)
    assert moments.count == oracle.count(x.shape, feature_axis)

    gradients = bnnumba.batch_norm_backward(dy, x, moments.mean, moments.var, gamma, feature_axis)
    bounds.check_gradients(x.dtype, gradients, oracle.backward(dy, x, moments.mean, moments.var, gamma, feature_axis))
    assert gradients.dgamma.shape == gradients.dbeta.shape == moments.mean.shape
    for result in (y, gradients.dx):
        assert result.strides == np.empty_like(x, order="K").strides
        assert result.dtype == x.dtype.newbyteorder("=")


@pytest.mark.parametrize("rank", range(1, 33))
def test_ranks(rank):
    rng = np.random.default_rng(rank)
    shape = np.ones(rank, int)
    shape[rng.permutation(rank)[:6]] = (2, 3, 2, 3, 2, 2)[:rank]
    feature_axis = tuple(map(int, rng.permutation(rank)[: rank // 2]))
    check_step(*problem(tuple(shape), feature_axis), feature_axis)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("feature_axis", EVERY_AXIS, ids=str)
def test_feature_axes_in_every_layout(feature_axis, layout):
    p = problem(SHAPE, feature_axis, offset=10.0)
    check_step(LAYOUTS[layout](p.x), p.dy, p.gamma, p.beta, feature_axis)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dy_in_another_layout(layout):
    p = problem(SHAPE, 1)
    for x in (p.x, fortran(p.x)):
        check_step(x, LAYOUTS[layout](p.dy), p.gamma, p.beta, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [(-1, 3), (-4, 0), ((0, 2), (2, 0)), ((1, 3), (-1, -3)), (1, (1,)), (np.int64(2), 2), ((-1, 0), (0, 3))],
    ids=str,
)
def test_spellings_of_the_same_axes(one, other):
    p = problem(SHAPE, other)
    (y, moments), (y_other, moments_other) = (bnnumba.batch_norm(p.x, p.gamma, p.beta, axis) for axis in (one, other))
    assert same_bits(y, y_other)
    assert same_bits(moments.mean, moments_other.mean)


@pytest.mark.parametrize("feature_axis", [1, (0, 3), (), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 2, 3, 0), (0, 2, 1, 3)], ids=str)
def test_transposing_with_the_axes_changes_no_bit(feature_axis, order):
    p = problem(SHAPE, feature_axis)
    kept = oracle.kept_axes(4, feature_axis)
    moved = tuple(order.index(axis) for axis in kept)
    turn = np.argsort(np.argsort(moved)) if kept else ()  # where each kept axis went among the kept
    turned_features = [np.transpose(features, np.argsort(turn)) if kept else features for features in (p.gamma, p.beta)]
    y, moments = bnnumba.batch_norm(p.x, p.gamma, p.beta, feature_axis)
    y_turned, moments_turned = bnnumba.batch_norm(p.x.transpose(order), *turned_features, moved)
    assert same_bits(y.transpose(order), y_turned)
    for one, other in zip(moments[:2], moments_turned[:2], strict=True):
        assert same_bits(np.transpose(one, np.argsort(turn)) if kept else one, other)


@pytest.mark.parametrize("broadcast", range(4))
@pytest.mark.parametrize("feature_axis", [0, -1, (1, 2)], ids=str)
def test_zero_strides(broadcast, feature_axis):
    shape = tuple(1 if axis == broadcast else size for axis, size in enumerate(SHAPE))
    p = problem(SHAPE, feature_axis)
    x, dy = (np.broadcast_to(array, SHAPE) for array in problem(shape, feature_axis)[:2])
    check_step(x, dy, p.gamma, p.beta, feature_axis)
    check_step(x, p.dy, p.gamma, p.beta, feature_axis)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (5, 1), (1, 5), (3, 1, 4), (1, 3, 1, 4, 1)], ids=str)
def test_axes_of_size_1(shape):
    for n in range(len(shape) + 1):
        for feature_axis in itertools.combinations(range(len(shape)), n):
            for layout in (np.ascontiguousarray, fortran):
                p = problem(shape, feature_axis)
                check_step(layout(p.x), p.dy, p.gamma, p.beta, feature_axis)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4), (0, 0, 2)], ids=str)
def test_axes_of_size_0(shape):
    for n in range(len(shape) + 1):
        for feature_axis in itertools.combinations(range(len(shape)), n):
            check_step(*problem(shape, feature_axis), feature_axis)


# ---- what is copied

NO_COPY = {
    "C order, last axis": (np.ascontiguousarray, -1),
    "C order, first axis": (np.ascontiguousarray, 0),
    "C order, inner axis": (np.ascontiguousarray, 1),
    "C order, adjacent axes": (np.ascontiguousarray, (1, 2)),
    "C order, adjacent last axes": (np.ascontiguousarray, (3, 2)),
    "C order, no axis": (np.ascontiguousarray, ()),
    "C order, all axes": (np.ascontiguousarray, (0, 1, 2, 3)),
    "Fortran order, last axis": (fortran, -1),
    "Fortran order, inner axis": (fortran, 2),
    "Fortran order, adjacent axes": (fortran, (0, 1)),
    "Fortran order, no axis": (fortran, ()),
    "channels-last view of channels first": (LAYOUTS["last axis first"], -1),
    "channels-first view of channels last": (LAYOUTS["first axis last"], 0),
    "read-only": (LAYOUTS["read-only"], 1),
}


@pytest.mark.parametrize("case", NO_COPY)
def test_no_copy_where_there_is_a_view(case):
    layout, feature_axis = NO_COPY[case]
    x = layout(problem(SHAPE).x)
    assert_view_is_shared(x, feature_axis)


@pytest.mark.parametrize("shape", [(1, 3, 1, 5), (2, 1, 4, 1), (1, 1, 1, 7)], ids=str)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, fortran])
def test_axes_of_one_element_cost_no_copy(shape, layout):
    for feature_axis in range(4):
        assert_view_is_shared(layout(problem(shape).x), feature_axis)


def assert_view_is_shared(x, feature_axis):
    view = canonical_view(x, feature_axis)
    canonical = view.of(x)
    assert canonical.shape == view.shape
    assert canonical.flags.c_contiguous
    assert np.shares_memory(canonical, x)
    assert np.may_share_memory(view.for_result(x.copy(order="K")), x) is False


@pytest.mark.parametrize("feature_axis", [0, -1, 1, (0, 2), (0, -1), ()], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_at_most_one_copy_elsewhere(layout, feature_axis):
    """Memory that NumPy allocates for x's view: x's size at most, or nothing where memory is shared."""
    x = LAYOUTS[layout](problem((16, 16, 16, 16)).x)
    view = canonical_view(x, feature_axis)
    tracemalloc.start()
    canonical = view.of(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    small = 4096  # array objects and shapes
    assert peak <= small + (0 if np.shares_memory(canonical, x) else x.nbytes)
