"""population_moments and recompute_moving: exact statistics of what comes batch by batch."""

import gc
import sys
import weakref

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, problem

SPLITS = [1, 17, 18, 60]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_the_population_is_all_batches(dtype, offset):
    x = problem((90, 4, 5), 1, dtype, offset).x
    found = bnnumba.population_moments((part for part in np.split(x, SPLITS)), 1)
    bounds.check_moments(dtype, found, oracle.batch_norm(x, None, None, 1))
    assert found.count == 450


def test_batches_may_differ_along_reduced_axes():
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, shape) for shape in ((2, 3, 5, 5), (7, 3, 1, 9), (0, 3, 4, 4), (1, 3, 2, 2))]
    found = bnnumba.population_moments(batches, 1)
    values = np.concatenate([np.moveaxis(x, 1, -1).reshape(-1, 3) for x in batches])
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.var, values.var(axis=0), rtol=1e-13)


def test_no_more_than_one_batch_is_held():
    gc.collect()
    gc.freeze()  # what other tests have left is not looked through again at each batch
    alive, most = weakref.WeakSet(), []

    class Batch(np.ndarray):
        """An array that a weak set takes."""

        __hash__ = object.__hash__

    def batches():
        for seed in range(5):
            gc.collect()
            most.append(len(alive))
            x = problem((50, 3), seed=seed).x.view(Batch)
            alive.add(x)
            yield x
            del x

    for progress in (False, True):
        bnnumba.population_moments(batches(), progress=progress)
    layer = BatchNormalization()
    layer.recompute_moving(batches())
    gc.unfreeze()
    assert max(most) == 0


def test_a_progress_bar_shows_the_batches(capsys):
    batches = [np.ones((2, 3))] * 4
    quiet = bnnumba.population_moments(batches)
    assert capsys.readouterr().out == ""
    shown = bnnumba.population_moments(batches, progress=True)
    assert "100%" in capsys.readouterr().out
    assert (quiet.mean == shown.mean).all()


def test_without_rich_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ModuleNotFoundError, match=r"bnnumba\[cli\]"):
        bnnumba.population_moments([np.ones((2, 3))], progress=True)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (None, TypeError, "batches must be an iterable.*None"),
        (3, TypeError, "batches must be an iterable.*int 3"),
        ("text", TypeError, "batches must be an iterable.*text"),
        ([], ValueError, "batches must hold at least one array"),
        ([np.ones((2, 3)), [1.0]], TypeError, r"batches\[1\] must be an array, got a list of 1: give the data alone"),
        ([np.ones((2, 3), complex)], TypeError, r"batches\[0\].*float32, float64.*complex128"),
        ([np.ones((2, 3)), np.ones((2, 4))], ValueError, r"batches\[1\] must have the feature shape.*\(3,\).*\(4,\)"),
    ],
)
def test_bad_batches(batches, error, words):
    for call in (bnnumba.population_moments, BatchNormalization().recompute_moving):
        with pytest.raises(error, match=words):
            call(batches)


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_array_is_no_list_of_batches(dtype):
    """It would be read as batches along its first axis: of other features, and other counts."""
    x = np.ones((4, 3, 2), dtype)
    for call in (bnnumba.population_moments, BatchNormalization().recompute_moving):
        with pytest.raises(TypeError, match=r"got one ndarray of shape \(4, 3, 2\): give \[x\], or use moments\(x\)"):
            call(x)
    assert bnnumba.population_moments([x]).count == 12


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="feature_axis 2 is out of bounds"):
        bnnumba.population_moments([np.ones((2, 3))], 2)
    with pytest.raises(ValueError, match="axis 2 is out of bounds"):
        BatchNormalization(2).recompute_moving([np.ones((2, 3))])
    with pytest.raises(TypeError, match="progress must be True or False"):
        bnnumba.population_moments([np.ones((2, 3))], progress=1)


# ---- the layer


@pytest.mark.parametrize("ddof", [0, 1])
def test_moving_statistics_become_the_populations(ddof):
    x = problem((90, 3), -1, np.float64, 10.0).x
    layer = BatchNormalization(ddof=ddof, moving_mean_initializer=np.full(3, np.nan))
    layer.recompute_moving(iter(np.split(x, SPLITS)))
    np.testing.assert_allclose(layer.moving_mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(layer.moving_variance, x.var(axis=0, ddof=ddof), rtol=1e-13)
    assert layer.batches_seen == len(SPLITS) + 1
    y = layer(x)
    assert abs(y.mean(axis=0)).max() < 1e-12


def test_training_without_momentum_goes_on_from_the_population():
    batches = [problem((9, 3), seed=seed, offset=seed).x for seed in range(4)]
    layer = BatchNormalization(momentum=None)
    layer.recompute_moving(batches)
    before = layer.moving_mean.copy()
    layer(batches[0], training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.8 * before + 0.2 * bnnumba.moments(batches[0]).mean, rtol=1e-14)


def test_nothing_leaves_the_layer_as_it_is():
    layer = BatchNormalization(moving_mean_initializer=4.0)
    layer.recompute_moving([np.empty((0, 3), np.float32)])
    assert (layer.moving_mean == 4.0).all()
    assert layer.batches_seen == 0
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        layer.recompute_moving([np.ones((5, 2))])
    assert (layer.moving_mean == 4.0).all()


def test_nonfinite_features_are_left_on_demand():
    x = problem((20, 3)).x
    x[4, 1] = np.inf
    for skip in (False, True):
        layer = BatchNormalization(skip_nonfinite=skip, moving_mean_initializer=7.0)
        layer.recompute_moving([x[:10], x[10:]])
        assert (layer.moving_mean[1] == 7.0) == skip
        assert np.isfinite(layer.moving_mean[[0, 2]]).all()


def test_with_renormalization_training_goes_on_from_there():
    x = problem((90, 3), offset=3.0).x
    layer = BatchNormalization(renorm=True, momentum=1.0)
    layer.recompute_moving([x])
    np.testing.assert_allclose(layer.moving_stddev**2, layer.moving_variance + layer.epsilon)
    before = layer.moving_variance.copy()
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, before)
