"""Second derivatives against numerical differentiation of the oracle, and against PyTorch's."""

import numpy as np
import pytest

import bnnumba
from tests.tools import differences, oracle
from tests.tools.problems import FLOATS, LAYOUTS, problem

EPSILON = 1e-3
CASES = pytest.mark.parametrize(
    ("shape", "axis"), [((7, 3), -1), ((3, 4, 5), 1), ((3, 2, 3, 2), (1, 3)), ((6,), ())], ids=str
)
FROZEN = pytest.mark.parametrize("frozen", [False, True])


class Second:
    """A problem with the gradients of the gradients, and moments that are the batch's, or, frozen, any."""

    def __init__(self, shape, axis, frozen, dtype=np.float64, offset=0.5):
        self.p = problem(shape, axis, dtype, offset)
        rng = np.random.default_rng(7)
        features = oracle.feature_shape(shape, axis)
        self.ddx = rng.standard_normal(shape).astype(dtype)
        self.ddgamma, self.ddbeta = rng.standard_normal(features), rng.standard_normal(features)
        self.axis, self.frozen = axis, frozen
        self.constants = rng.standard_normal(features), rng.uniform(0.5, 2, features)

    def moments(self, x):
        return self.constants if self.frozen else [np.squeeze(m, self.reduced) for m in oracle.moments(x, self.axis)]

    @property
    def reduced(self):
        return oracle.reduced_axes(self.p.x.ndim, self.axis)

    def value(self, dy, x, gamma):
        """What is differentiated."""
        exact = oracle.backward(dy, x, *self.moments(x), gamma, self.axis, EPSILON, self.frozen)
        features = [np.squeeze(each, self.reduced) for each in (exact.dgamma, exact.dbeta)]
        return sum(
            (a * b).sum() for a, b in zip((self.ddx, self.ddgamma, self.ddbeta), (exact.dx, *features), strict=True)
        )

    def result(self, **given):
        mean, var = (np.asarray(m, np.float64) for m in self.moments(self.p.x))
        outer = {"ddx": self.ddx, "ddgamma": self.ddgamma, "ddbeta": self.ddbeta, **given}
        p = self.p
        return bnnumba.batch_norm_double_backward(
            *outer.values(), p.dy, p.x, mean, var, p.gamma, self.axis, epsilon=EPSILON, frozen=self.frozen
        )


@CASES
@FROZEN
def test_numerical_differentiation(shape, axis, frozen):
    second = Second(shape, axis, frozen)
    p, result = second.p, second.result()
    for which, name in enumerate(("ddy", "dx", "dgamma")):
        numeric = differences.gradient(second.value, (p.dy, p.x, p.gamma), which).astype(float)
        np.testing.assert_allclose(getattr(result, name), numeric, rtol=1e-7, atol=1e-8, err_msg=name)


@CASES
@FROZEN
@pytest.mark.parametrize("missing", ["ddx", "ddgamma", "ddbeta"])
def test_none_is_zero(shape, axis, frozen, missing):
    second = Second(shape, axis, frozen)
    zero = np.zeros_like(getattr(second, missing))
    for one, other in zip(second.result(**{missing: None}), second.result(**{missing: zero}), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-14, strict=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", FLOATS)
@FROZEN
def test_layouts_and_dtypes(layout, dtype, frozen):
    second = Second((3, 4, 5), 1, frozen, dtype, offset=3.0)
    expected = Second((3, 4, 5), 1, frozen, np.float64, offset=3.0).result()
    second.p = second.p._replace(x=LAYOUTS[layout](second.p.x), dy=LAYOUTS[layout](second.p.dy))
    tolerance = {"rtol": 2e-4, "atol": 2e-5} if dtype is np.float32 else {"rtol": 1e-11, "atol": 1e-12}
    for name, found, right in zip(expected._fields, second.result(), expected, strict=True):
        np.testing.assert_allclose(found, right, **tolerance, err_msg=name)
        assert found.dtype == (np.float64 if name == "dgamma" else dtype)


@FROZEN
def test_degenerate(frozen):
    for shape in ((0, 3), (1, 3)):
        x, f = np.ones(shape), np.ones(3)
        found = bnnumba.batch_norm_double_backward(x, f, f, x, x, f, 0 * f, f, epsilon=0.0, frozen=frozen)
        assert found.ddy.shape == found.dx.shape == shape
        assert (found.ddy == 1).all()
        assert (found.dx == 0).all()
        assert (found.dgamma == 0).all()


@FROZEN
@pytest.mark.parametrize(("shape", "axis"), [((40, 5), 1), ((6, 5, 7, 3), 1)], ids=str)
def test_pytorch(shape, axis, frozen):
    torch = pytest.importorskip("torch")
    second = Second(shape, axis, frozen)
    x, dy, gamma, beta = (torch.tensor(array, requires_grad=True) for array in second.p)
    statistics = [torch.tensor(constant) for constant in second.constants]
    y = torch.nn.functional.batch_norm(x, *statistics, gamma, beta, training=not frozen, eps=EPSILON)
    first = torch.autograd.grad(y, (x, gamma, beta), dy, create_graph=True)
    outer = [torch.tensor(array) for array in (second.ddx, second.ddgamma, second.ddbeta)]
    expected = torch.autograd.grad(first, (dy, x, gamma), outer)
    for found, right in zip(second.result(), expected, strict=True):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ddx", np.ones((7, 4)), ValueError), ("ddx", np.ones((7, 3), np.float32), TypeError), ("ddx", 1.0, TypeError),
        ("ddgamma", np.ones(4), ValueError), ("ddgamma", [1.0] * 3, TypeError), ("ddbeta", np.ones(3, int), TypeError),
    ],
)  # fmt: skip
def test_bad_input(name, value, error):
    with pytest.raises(error, match=name):
        Second((7, 3), -1, False).result(**{name: value})
