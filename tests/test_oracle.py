"""The oracle itself: against mpmath at 50 digits, and its gradients against numerical differentiation."""

import mpmath
import numpy as np
import pytest

from tests.tools import differences, oracle
from tests.tools.problems import problem

SHAPE, EPSILON = (5, 2), 1e-3
OWN_ERROR = 640 * float(np.finfo(oracle.WIDE).eps)  # some dozens of operations on numbers below 10
FROZEN = pytest.mark.parametrize("frozen", [False, True])


def digits(array):
    return [[mpmath.mpf(float(value)) for value in row] for row in array]


def by_mpmath(p, f, given=None):
    """One column, by the definition: mean, var, y, dgamma, dbeta, dx."""
    n = len(p.x)
    x, dy = [row[f] for row in digits(p.x)], [row[f] for row in digits(p.dy)]
    gamma, beta = mpmath.mpf(p.gamma[f]), mpmath.mpf(p.beta[f])
    mean = sum(x) / n
    var = sum((value - mean) ** 2 for value in x) / n
    if given:
        mean, var = (mpmath.mpf(float(value[f])) for value in given)
    rstd = 1 / mpmath.sqrt(var + mpmath.mpf(EPSILON))
    x_hat = [(value - mean) * rstd for value in x]
    dbeta, dgamma = sum(dy), sum(d * h for d, h in zip(dy, x_hat, strict=True))
    centre, slope = (0, 0) if given else (dbeta / n, dgamma / n)
    dx = [gamma * rstd * (d - centre - h * slope) for d, h in zip(dy, x_hat, strict=True)]
    return [mean, var, *[gamma * h + beta for h in x_hat], dgamma, dbeta, *dx]


@FROZEN
def test_agrees_with_mpmath(frozen):
    p = problem(SHAPE, dtype=np.float64, offset=3.0)
    given = (np.array([2.5, 3.5]), np.array([0.5, 2.0])) if frozen else None
    mean, var = given or oracle.moments(p.x)
    forward = oracle.normalize(p.x, mean, var, p.gamma, p.beta, epsilon=EPSILON)
    backward = oracle.backward(p.dy, p.x, mean, var, p.gamma, epsilon=EPSILON, frozen=frozen)
    with mpmath.workdps(50):
        for f in range(SHAPE[1]):
            results = [forward.mean, forward.var, forward.y, backward.dgamma, backward.dbeta, backward.dx]
            column = np.concatenate([result[:, f] for result in results])
            for result, exact in zip(column, by_mpmath(p, f, given), strict=True):
                assert abs(mpmath.mpf(np.format_float_scientific(result, unique=True)) - exact) <= OWN_ERROR


@FROZEN
@pytest.mark.parametrize("feature_axis", [-1, 0, (0, 1), ()])
def test_gradients_agree_with_differences(frozen, feature_axis):
    """The derivative of sum(dy * y) by x, gamma and beta."""
    p = problem((4, 3, 2), feature_axis, np.float64, offset=2.0)
    mean, var = oracle.moments(p.x, feature_axis)

    def loss(x, gamma, beta):
        statistics = (mean, var) if frozen else oracle.moments(x, feature_axis)
        return (p.dy * oracle.normalize(x, *statistics, gamma, beta, feature_axis, EPSILON).y).sum()

    exact = oracle.backward(p.dy, p.x, mean, var, p.gamma, feature_axis, EPSILON, frozen)
    for which, gradient in enumerate([exact.dx, exact.dgamma, exact.dbeta]):
        numeric = differences.gradient(loss, (p.x, p.gamma, p.beta), which)
        # truncation: the step's square, 1.5e-11, times a sixth of the third derivative, some hundreds
        np.testing.assert_allclose(numeric.ravel().astype(float), gradient.ravel().astype(float), rtol=0, atol=1e-8)


def test_moments_of_equal_elements_are_exact():
    mean, var = oracle.moments(np.full((7, 2), 0.1))
    assert (mean == 0.1).all()
    assert (var == 0).all()


def test_moving_average_keeps_the_share_momentum():
    assert oracle.update_moving(1.0, 3.0, 0.75) == 0.75 * 1.0 + 0.25 * 3.0
