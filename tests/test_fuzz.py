"""Random problems against the oracle.

`pytest tests/test_fuzz.py --fuzz-cases 20000 --hypothesis-seed 1` runs longer.
"""

import numba
import numpy as np
import pytest
from hypothesis import given

import bnnumba
from tests.tools import bounds, oracle
from tests.tools.fuzzing import cases
from tests.tools.problems import LAYOUTS, same_bits


@pytest.fixture(autouse=True)
def threads():
    yield
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)


class Step:
    """Forward, inference and both backward passes of one case, as its output and its layouts have it."""

    def __init__(self, case, bad=()):
        p, axis, epsilon = case.problem, case.feature_axis, case.epsilon
        x = p.x.copy()
        for place, value in bad:
            x.flat[place] = value
        self.case, self.x = case, x
        common = {"feature_axis": axis, "epsilon": epsilon, "activation": case.activation}
        self.w, weights = next(iter(case.weights.values()), None), case.weights
        behind = {} if case.residual is None else {"residual": _layout(case.residual, case.dy_layout)}
        own = self._x()
        out = self._out(x=own)
        self.y, self.moments = bnnumba.batch_norm(own, p.gamma, p.beta, **common, **behind, **weights, out=out)
        mean, var, _ = self.moments
        own = self._x()
        self.inference = bnnumba.normalize(own, mean, var, p.gamma, p.beta, **common, **behind, out=self._out(x=own))
        common.update(weights, y=_native(self.y).copy(), residual=case.residual is not None)
        self.gradients = []
        for frozen in (False, True):
            own, dy = self._x(), self._dy()
            out = self._out(x=own, dy=dy)
            result = bnnumba.batch_norm_backward(dy, own, mean, var, p.gamma, **common, frozen=frozen, out=out)
            self.gradients.append(result)

    def _x(self):
        return _layout(self.x, self.case.x_layout)

    def _dy(self):
        return _layout(self.case.problem.dy, self.case.dy_layout)

    def _out(self, **inputs):
        """The output that the case asks for, full of NaN, if it is none of the inputs; None for a new one."""
        kind = self.case.output
        if kind in ("x", "dy"):
            array = inputs.get(kind)
            return array if array is not None and array.flags.writeable else None
        if kind == "new":
            return None
        shape = self.x.shape if kind == "fresh" else (*self.x.shape[:-1], 2 * self.x.shape[-1])
        return np.full(shape, np.nan, self.x.dtype)[..., :: 1 if kind == "fresh" else 2]

    def features(self):
        """Every result with the shape of the features."""
        return [*self.moments[:2], *(g for each in self.gradients for g in (each.dgamma, each.dbeta))]

    def data(self):
        """Every result with the shape of the data."""
        return [self.y, self.inference, *(each.dx for each in self.gradients)]


def _layout(array, name):
    return LAYOUTS[name](array.copy())


def check_against_oracle(step):
    (p, axis, epsilon, *_), dtype = step.case, step.x.dtype
    w, behind = step.w, (step.case.activation, step.case.residual)
    exact, statistics = oracle.batch_norm(p.x, p.gamma, p.beta, axis, epsilon, w), step.moments[:2]
    bounds.check_moments(dtype, step.moments, exact)
    total = oracle.count(p.x.shape, axis)
    if w is not None:
        total = np.broadcast_to(w, oracle.position_shape(p.x.shape, axis)).sum(dtype=oracle.WIDE)
        np.testing.assert_allclose(step.moments.count, float(total), rtol=1e-14)
    assert w is not None or step.moments.count == total
    counts = w is None or total > 0
    if not counts:
        exact = exact._replace(x_hat=0 * exact.x_hat, y=exact.beta + np.zeros(p.x.shape))
    bounds.check_fused_y(dtype, step.y, exact, *behind)
    exact = oracle.normalize(p.x, *statistics, p.gamma, p.beta, axis, epsilon)
    bounds.check_fused_y(dtype, step.inference, exact, *behind)
    dy = oracle.behind(p.dy, step.y, step.case.activation)
    for frozen, gradients in zip((False, True), step.gradients, strict=True):
        if step.case.residual is not None:
            np.testing.assert_array_equal(gradients.dresidual, dy)
        if not (frozen or counts):
            assert not gradients.dx.any()
            assert not gradients.dgamma.any()
            continue
        exact = oracle.backward(dy, p.x, *statistics, p.gamma, axis, epsilon, frozen, w)
        share = None if w is None or frozen else w.astype(oracle.WIDE) / total
        bounds.check_gradients(dtype, gradients, exact, frozen, share)


def check_poisoned(step, clean):
    """NaN where a feature holds what is not finite; elsewhere the bits of the clean data."""
    reduced = oracle.reduced_axes(step.x.ndim, step.case.feature_axis)
    poisoned = ~np.isfinite(step.x).all(axis=reduced)
    for found, expected in zip(step.moments[:2], clean.moments[:2], strict=True):
        assert np.isnan(found[poisoned]).all()
        assert same_bits(found[~poisoned], expected[~poisoned])
    for found, expected in zip(step.features(), clean.features(), strict=True):
        assert same_bits(found[~poisoned], expected[~poisoned])
    everywhere = np.broadcast_to(np.expand_dims(poisoned, reduced), step.x.shape)
    for found, expected in zip(step.data(), clean.data(), strict=True):
        assert same_bits(_native(found)[~everywhere], _native(expected)[~everywhere])
    assert np.isnan(step.y[everywhere]).all()
    assert np.isnan(step.inference[everywhere]).all()
    for each in step.gradients:  # frozen too: the constants are NaN
        assert np.isnan(each.dx[everywhere]).all()


def _native(array):
    return array.astype(array.dtype.newbyteorder("="), copy=False)


@given(cases())
def test_every_function_is_within_its_bounds(case):
    numba.set_num_threads(case.threads)
    clean = Step(case)
    check_against_oracle(clean)
    if case.bad:
        check_poisoned(Step(case, case.bad), clean)
