"""A residual and an activation behind the normalization: against the oracle, by numbers, and PyTorch's."""

import json

import numpy as np
import pytest

import bnnumba
from bnnumba import BatchNormalization
from bnnumba.activations import LeakyRelu, Relu, activation_of, public, text_of
from bnnumba.kernels import serial, threaded
from tests.tools import bounds, differences, oracle
from tests.tools.problems import FLOATS, LAYOUTS, problem, same_bits

LEAKY = oracle.LEAKY
EVERY_ACTIVATION = [given for given in oracle.ACTIVATIONS if given is not None]
KINDS = [("relu", False), (None, True), ("relu", True)]  # of every layout and dtype
EVERY_KIND = pytest.mark.parametrize(("activation", "with_residual"), KINDS, ids=str)
SHAPES = pytest.mark.parametrize(
    ("shape", "axis"), [((40, 3), -1), ((3000, 70), -1), ((6, 4, 5, 5), 1), ((20, 30, 196), 1), ((5, 2, 6, 3), (1, 3))],
    ids=str,
)  # fmt: skip
EPSILON = 1e-3


class Step:
    """A problem with its residual, and its forward pass."""

    def __init__(self, shape, axis, activation, with_residual, dtype=np.float32):
        p = problem(shape, axis, dtype, offset=3.0)
        self.p = p._replace(gamma=4 * p.gamma)  # so that y passes all edges
        self.axis = axis
        self.residual = (-self.p.dy).astype(dtype) if with_residual else None
        self.activation = activation
        self.y, self.moments = self.batch_norm()

    def batch_norm(self, **options):
        p = self.p
        return bnnumba.batch_norm(
            *(p.x, p.gamma, p.beta, self.axis), activation=self.activation, residual=self.residual, **options
        )

    def backward(self, dy=None, y=None, **options):
        p, y = self.p, self.y if y is None else y
        given = p.dy if dy is None else dy, p.x, *self.moments[:2], p.gamma, self.axis
        residual = self.residual is not None
        return bnnumba.batch_norm_backward(*given, y=y, activation=self.activation, residual=residual, **options)


@EVERY_KIND
@pytest.mark.parametrize("dtype", FLOATS)
@SHAPES
def test_against_the_oracle(shape, axis, dtype, activation, with_residual):
    step = Step(shape, axis, activation, with_residual, dtype)
    p = step.p
    exact = oracle.batch_norm(p.x, p.gamma, p.beta, axis)
    bounds.check_moments(dtype, step.moments, exact)
    bounds.check_fused_y(dtype, step.y, exact, activation, step.residual)
    mean, var = np.asarray(p.beta), np.asarray(p.gamma**2)
    y = bnnumba.normalize(p.x, mean, var, p.gamma, p.beta, axis, activation=activation, residual=step.residual)
    exact = oracle.normalize(p.x, mean, var, p.gamma, p.beta, axis)
    bounds.check_fused_y(dtype, y, exact, activation, step.residual)

    dresidual = oracle.behind(p.dy, step.y, activation)
    for frozen in (False, True):
        gradients = step.backward(frozen=frozen)
        exact = oracle.backward(dresidual, p.x, *step.moments[:2], p.gamma, axis, EPSILON, frozen)
        bounds.check_gradients(dtype, gradients, exact, frozen)
        if with_residual:
            np.testing.assert_array_equal(gradients.dresidual, dresidual)
        else:
            assert gradients.dresidual is None
    sums = step.backward(needs_dx=False)
    assert sums.dx is None
    assert same_bits(sums.dgamma, gradients.dgamma)
    assert same_bits(sums.dbeta, gradients.dbeta)
    if with_residual:
        np.testing.assert_array_equal(sums.dresidual, dresidual)


@EVERY_KIND
@pytest.mark.parametrize("frozen", [False, True])
def test_numerical_differentiation(frozen, activation, with_residual):
    """Of <dy, y> with respect to x, gamma, beta and the residual, in float64; no element is near an edge."""
    step = Step((7, 3), -1, activation, with_residual, np.float64)
    p, constants = step.p, step.moments[:2]
    residual = np.zeros_like(p.x) if step.residual is None else step.residual

    def value(x, gamma, beta, residual):
        moments = constants if frozen else oracle.moments(x)
        exact = oracle.normalize(x, *(np.squeeze(m) for m in moments), gamma, beta)
        return (p.dy * oracle.act(exact, activation, residual).y).sum()

    v = oracle.batch_norm(p.x, p.gamma, p.beta).y + residual
    assert all(abs(v - edge).min() > 1e-4 for edge in oracle.ACTIVATIONS[activation].edges)
    gradients = step.backward(frozen=frozen)
    dresidual = oracle.behind(p.dy, step.y, activation) if step.residual is None else gradients.dresidual
    for which, gradient in enumerate((gradients.dx, gradients.dgamma, gradients.dbeta, dresidual)):
        numeric = differences.gradient(value, (p.x, p.gamma, p.beta, residual), which).astype(float)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-7, atol=1e-7)


@EVERY_KIND
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout, activation, with_residual):
    plain = Step((6, 4, 5), 1, activation, with_residual)
    step = Step((6, 4, 5), 1, activation, with_residual)
    place = LAYOUTS[layout]
    step.residual = step.residual if step.residual is None else place(step.residual)
    y, _ = step.batch_norm()
    np.testing.assert_array_equal(y, plain.y)
    for frozen in (False, True):
        found, expected = step.backward(place(step.p.dy), place(y), frozen=frozen), plain.backward(frozen=frozen)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@EVERY_KIND
def test_results_in_the_place_of_inputs(activation, with_residual):
    plain = Step((6, 4, 5), 1, activation, with_residual)
    for taken in ("x", "residual"):
        step = Step((6, 4, 5), 1, activation, with_residual)
        out = step.p.x if taken == "x" else step.residual
        if out is not None:
            assert step.batch_norm(out=out)[0] is out
            np.testing.assert_array_equal(out, plain.y)
    for frozen in (False, True):
        expected = plain.backward(frozen=frozen)
        for taken in ("x", "dy"):
            step = Step((6, 4, 5), 1, activation, with_residual)
            found = step.backward(frozen=frozen, out=getattr(step.p, taken))
            assert found.dx is getattr(step.p, taken)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def check_made_again(shape, dtype, form, activation):
    p = problem(shape, 1, dtype, offset=3.0)
    x = p.x.copy()
    x[::5] = 0.0  # with beta 0 too, y may be just 0
    beta, (mean, var) = np.where(np.arange(shape[1]) % 2, p.beta, 0.0), np.empty((2, shape[1]))
    y = np.empty_like(x)
    form.batch_norm_into(x, p.gamma, beta, EPSILON, y, mean, var, None, activation)
    expected, made = ([np.empty_like(x), *np.empty((2, shape[1]))] for _ in range(2))
    given = p.dy, x, mean, var, p.gamma, EPSILON
    form.batch_norm_backward_into(*given, *expected, None, activation, y)
    form.batch_norm_backward_into(*given, *made, None, activation, None, beta)
    assert all(map(same_bits, made, expected))


@pytest.mark.parametrize("form", [serial, threaded], ids=["serial", "threaded"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape", [(37, 3, 1), (3000, 70, 1), (700, 256, 1), (6, 4, 25), (20, 30, 196), (0, 4, 1)], ids=str
)
def test_a_result_made_again_has_its_bits(shape, dtype, form):
    check_made_again(shape, dtype, form, Relu())


@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=str)
def test_results_of_every_activation_made_again(activation):
    check_made_again((300, 5, 1), np.float64, serial, activation_of(activation))


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=str)
def test_every_activation_with_and_without_a_residual(activation, with_residual):
    test_against_the_oracle((9, 4, 5), 1, np.float64, activation, with_residual)
    test_nan_passes_and_so_does_its_gradient(activation, with_residual)
    test_no_elements((0, 3), activation, with_residual)
    test_the_layer("training", activation, with_residual)
    test_pytorch_has_the_same(activation, with_residual, False)
    for frozen in (False, True):
        test_numerical_differentiation(frozen, activation, with_residual)


@pytest.mark.parametrize("given", [0, -0.1, np.nan, np.inf, "1", 1e-39, 1e39])
def test_a_slope_that_y_could_not_tell_is_refused(given):
    for make in (LeakyRelu, lambda slope: LeakyRelu()._replace(negative_slope=slope), lambda v: LeakyRelu._make([v])):
        with pytest.raises((TypeError, ValueError), match="negative_slope must be"):
            make(given)


@pytest.mark.parametrize(
    "text", ["Relu()", "LeakyRelu", "LeakyRelu()", "LeakyRelu(0.2", "LeakyRelu(1_0.0)", "LeakyRelu(0.2, 0.3)", ""]
)
def test_another_text_is_no_activation(text):
    with pytest.raises(ValueError, match="activation must be None, 'relu', 'relu6', LeakyRelu, got"):
        BatchNormalization(activation=text)


@pytest.mark.parametrize("activation", EVERY_ACTIVATION, ids=str)
def test_an_activation_is_written_and_read(activation):
    assert public(activation_of(text_of(activation) or None)) == activation
    layer = BatchNormalization(activation=activation)
    assert BatchNormalization.from_config(json.loads(json.dumps(layer.get_config()))).activation == activation
    assert f"activation={activation!r}" in repr(layer)


def test_dresidual_without_an_activation_is_dy_itself():
    step = Step((6, 4, 5), 1, None, True)
    assert step.backward().dresidual is step.p.dy
    assert step.backward(needs_dx=False).dresidual is step.p.dy


@EVERY_KIND
def test_nan_passes_and_so_does_its_gradient(activation, with_residual):
    step = Step((6, 4, 5), 1, activation, with_residual, np.float64)
    x, constants = step.p.x, step.moments[:2]
    for poisoned in [x] if step.residual is None else [x, step.residual]:
        kept, poisoned[2, 1, 3] = poisoned[2, 1, 3], np.nan
        y = bnnumba.normalize(x, *constants, None, None, 1, activation=activation, residual=step.residual)
        assert np.argwhere(np.isnan(y)).tolist() == [[2, 1, 3]]
        if with_residual:
            assert step.backward(y=y, needs_dx=False).dresidual[2, 1, 3] == step.p.dy[2, 1, 3] != 0
        poisoned[2, 1, 3] = kept
    x[2, 1, 3] = np.nan
    assert (np.isnan(step.batch_norm()[0]) == (np.arange(4) == 1)[:, None]).all()


@EVERY_KIND
@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0)], ids=str)
def test_no_elements(shape, activation, with_residual):
    step = Step(shape, -1, activation, with_residual, np.float64)
    assert step.y.shape == shape
    for frozen in (False, True):
        gradients = step.backward(frozen=frozen)
        assert gradients.dx.shape == shape
        assert not gradients.dgamma.any()
        assert not gradients.dbeta.any()


# ---- the layer


MODES = {
    "training": {},
    "frozen": {"trainable": False},
    "renorm": {"renorm": True, "renorm_clipping": {"rmax": 1.5, "dmax": 0.5}},
}


@EVERY_KIND
@pytest.mark.parametrize("mode", MODES)
def test_the_layer(mode, activation, with_residual):
    """It gives the bits of a layer without them, whose y and dy NumPy carries through."""
    step = Step((9, 3), -1, activation, with_residual, np.float64)
    layers = []
    for kind in (activation, None):
        options = {"moving_mean_initializer": 3.1, "gamma_initializer": step.p.gamma, **MODES[mode]}
        trainable = options.pop("trainable", True)
        layer = BatchNormalization(beta_initializer=step.p.beta, activation=kind, **options)
        layer.trainable = trainable
        layers.append(layer)
    fused, plain = layers
    expected = plain(step.p.x, training=True)
    expected = expected if step.residual is None else expected + step.residual
    expected = oracle.ACTIVATIONS[activation].forward(expected)
    np.testing.assert_array_equal(fused(step.p.x, training=True, residual=step.residual), expected)
    dresidual = oracle.behind(step.p.dy, expected, activation)
    result = fused.backward(step.p.dy)
    if with_residual:
        np.testing.assert_array_equal(result[1], dresidual)
        result = result[0]
    np.testing.assert_array_equal(result, plain.backward(dresidual))
    for name in ("dgamma", "dbeta", "moving_mean", "moving_variance"):
        assert same_bits(getattr(fused, name), getattr(plain, name)), name
    inference = fused(step.p.x, residual=step.residual)
    expected = plain(step.p.x) + (0 if step.residual is None else step.residual)
    np.testing.assert_array_equal(inference, oracle.ACTIVATIONS[activation].forward(expected))


@pytest.mark.parametrize("frozen", [False, True])
@EVERY_KIND
def test_pytorch_has_the_same(activation, with_residual, frozen):
    torch = pytest.importorskip("torch")
    step = Step((6, 4, 5, 5), 1, activation, with_residual, np.float64)
    p = step.p
    leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (p.x, p.gamma, p.beta, -p.dy)]
    mean, var = (torch.from_numpy(m) for m in step.moments[:2])
    z = torch.nn.functional.batch_norm(leaves[0], mean, var, leaves[1], leaves[2], not frozen, 0.0, EPSILON)
    z = z + leaves[3] if with_residual else z
    name, *arguments = oracle.ACTIVATIONS[activation].torch
    y = z if name == "identity" else getattr(torch.nn.functional, name)(z, *arguments)
    used = leaves if with_residual else leaves[:3]
    theirs = torch.autograd.grad(y, used, torch.from_numpy(p.dy))
    np.testing.assert_allclose(step.y, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    for ours, other in zip(step.backward(frozen=frozen), theirs, strict=False):
        np.testing.assert_allclose(ours, other.numpy(), rtol=1e-11, atol=1e-11)
