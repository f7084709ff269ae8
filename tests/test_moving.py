"""Moving statistics: moving = momentum*moving + (1 - momentum)*batch, with either variance."""

import numpy as np
import pytest

import bnnumba
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, LAYOUTS, problem


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_moving_statistics_equal_the_formula(steps, momentum, dtype, ddof):
    """Each step rounds to the moving array's dtype, and takes momentum of the rounding before it along."""
    mean, var = np.full(3, 0.5, dtype), np.full(3, 2.0, dtype)
    exact_mean, exact_var = mean.astype(oracle.WIDE), var.astype(oracle.WIDE)
    largest = oracle.WIDE(1)
    for step in range(steps):
        moments = bnnumba.moments(problem((9, 3), seed=step, offset=step).x)
        assert bnnumba.update_moving(mean, var, moments, momentum, ddof=ddof) is None
        batch_var = moments.var.astype(oracle.WIDE) * 9 / (9 - ddof)
        exact_mean = oracle.update_moving(exact_mean, moments.mean, momentum)
        exact_var = oracle.update_moving(exact_var, batch_var, momentum)
        largest = max(largest, abs(exact_mean).max(), abs(exact_var).max(), batch_var.max(), abs(moments.mean).max())
    allowed = np.full(3, steps * (bounds.eps(dtype) / 2 + 3 * bounds.E64) * largest)  # one rounding, three operations
    bounds.check("moving_mean", mean, exact_mean, allowed)
    bounds.check("moving_var", var, exact_var, allowed)
    assert mean.dtype == var.dtype == dtype


@pytest.mark.parametrize("ddof", [0, 1])
def test_moving_statistics_of_a_batch_of_one_or_none(ddof):
    mean, var = np.full(3, 4.0), np.full(3, 8.0)
    bnnumba.update_moving(mean, var, bnnumba.moments(np.empty((0, 3), np.float32)), 0.5, ddof=ddof)
    assert (mean == 4.0).all()
    assert (var == 8.0).all()
    bnnumba.update_moving(mean, var, bnnumba.moments(np.full((1, 3), 2.0)), 0.5, ddof=ddof)
    assert (mean == 3.0).all()
    assert (var == 4.0).all()  # a variance of 0, times 1/max(0, 1)


def test_arrays_that_share_memory_are_refused():
    """In part: what is read would have moved already. Exactly the same, each element is read before it moves."""
    memory, other = np.arange(6.0), np.ones(5)
    late, early = memory[1:], memory[:5]
    for mean, var, moments in (
        (late, other, bnnumba.Moments(early, np.ones(5), 3)),
        (other, late, bnnumba.Moments(np.ones(5), early, 3)),
        (other, late, bnnumba.Moments(early, np.ones(5), 3)),
        (late, other, bnnumba.Moments(np.ones(5), early, 3)),
        (late, early, bnnumba.Moments(np.ones(5), np.ones(5), 3)),
    ):
        with pytest.raises(ValueError, match=r"moving_(mean|var) must share no memory with "):
            bnnumba.update_moving(mean, var, moments, 0.5)
    assert list(memory) == list(range(6))
    bnnumba.update_moving(late, other, bnnumba.Moments(late, np.ones(5), 3), 0.5)
    assert list(memory) == list(range(6))


@pytest.mark.parametrize("renorm", [False, True])
def test_a_layers_arrays_that_share_memory_are_refused(renorm):
    layer, memory = bnnumba.BatchNormalization(renorm=renorm), np.ones(4)
    layer.build((None, 3))
    layer.moving_mean, layer.moving_variance = memory[:3], memory[1:]
    with pytest.raises(ValueError, match="moving_mean must share no memory with moving_variance"):
        layer(np.ones((5, 3)), training=True)
    assert (memory == 1).all()


def test_moving_arrays_of_any_strides_and_byte_order():
    moments = bnnumba.moments(problem((9, 2, 3), (1, 2)).x, (1, 2))
    expected = np.zeros((2, 3))
    bnnumba.update_moving(expected, np.ones((2, 3)), moments)
    for layout in LAYOUTS.values():
        mean = layout(np.zeros((2, 3)))
        mean.flags.writeable = True
        bnnumba.update_moving(mean, np.ones((2, 3), np.float32), moments)
        assert (mean == expected).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_nonfinite_batches_are_skipped_on_demand(poison, shape):
    """The poisoned features stay, bit for bit; the others move as they would without them."""
    axes = tuple(range(1, 1 + len(shape)))
    x = problem((9, *shape), axes, offset=1.0).x
    clean = bnnumba.moments(x, axes)
    x[4, 1] = poison
    poisoned = bnnumba.moments(x, axes)
    for dtype in FLOATS:
        expected, found, default = ([np.full(shape, 0.3, dtype), np.full(shape, 0.7, dtype)] for _ in range(3))
        bnnumba.update_moving(*expected, clean, 0.9)
        bnnumba.update_moving(*found, poisoned, 0.9, skip_nonfinite=True)
        bnnumba.update_moving(*default, poisoned, 0.9)
        for moved, skipped, lost, start in zip(expected, found, default, (0.3, 0.7), strict=True):
            moved[1] = start
            np.testing.assert_array_equal(skipped, moved, strict=True)
            assert not np.isfinite(lost[1]).any()


def test_layer_skips_nonfinite_batches_on_demand():
    x = problem((9, 3)).x
    x[4, 1] = np.nan
    for skip in (False, True):
        layer = bnnumba.BatchNormalization(skip_nonfinite=skip)
        y = layer(x, training=True)
        assert np.isnan(y[:, 1]).all()
        assert np.isfinite(y[:, [0, 2]]).all()
        for moving, start in ((layer.moving_mean, 0.0), (layer.moving_variance, 1.0)):
            assert moving[1] == start if skip else np.isnan(moving[1])
            assert np.isfinite(moving[[0, 2]]).all()
            assert (moving[[0, 2]] != start).all()
        assert layer.get_config()["skip_nonfinite"] is skip


@pytest.mark.parametrize("count", [2**53, 2**63, 10**30])
def test_a_count_beyond_any_integer_of_the_kernels(count):
    mean, var = np.zeros(3), np.ones(3)
    bnnumba.update_moving(mean, var, bnnumba.Moments(np.ones(3), np.full(3, 2.0), count), 0.5, ddof=1)
    np.testing.assert_allclose(var, 1.5, rtol=1e-15)
