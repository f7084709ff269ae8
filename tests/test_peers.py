"""The layer beside Keras's and PyTorch's, where they are installed: the same outputs, averages and gradients.

They compute in float32, so that each of their results may be some 1e-6 of its size off; the conventions that could be
confused (momentum's direction, the variance's divisor, the epsilon) would show as 1e-2 and more.
"""

import numpy as np
import pytest

from bnnumba import BatchNormalization
from tests.tools.problems import problem

STEPS = 4
near = {"rtol": 2e-5, "atol": 2e-5}


def batches(shape, axis):
    return [problem(shape, axis, offset=1.0 + step, scale=2.0, seed=step) for step in range(STEPS)]


@pytest.mark.parametrize(("shape", "axis"), [((12, 3), -1), ((2, 3, 2, 2), 1), ((2, 3, 2, 4), -1)], ids=str)
def test_keras(shape, axis):
    tf = pytest.importorskip("tensorflow")
    steps = batches(shape, axis)
    gamma, beta = steps[0].gamma, steps[0].beta
    layer = BatchNormalization(axis, momentum=0.8, epsilon=1e-2)
    peer = tf.keras.layers.BatchNormalization(axis, momentum=0.8, epsilon=1e-2)
    for one in (layer, peer):
        one.build(shape)
        one.set_weights([gamma, beta, np.zeros(gamma.shape), np.ones(gamma.shape)])
    for p in steps:
        x = tf.constant(p.x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = peer(x, training=True)
        dx, dgamma, dbeta = tape.gradient(y, [x, peer.gamma, peer.beta], output_gradients=tf.constant(p.dy))
        np.testing.assert_allclose(layer(p.x, training=True), y.numpy(), **near)
        np.testing.assert_allclose(layer.backward(p.dy), dx.numpy(), **near)
        np.testing.assert_allclose(layer.dgamma, np.asarray(dgamma), **near)
        np.testing.assert_allclose(layer.dbeta, np.asarray(dbeta), **near)
        for own, theirs in zip(layer.get_weights(), peer.get_weights(), strict=True):
            np.testing.assert_allclose(own, theirs, **near)
        np.testing.assert_allclose(layer(p.x), peer(x, training=False).numpy(), **near)

    layer.trainable = peer.trainable = False
    np.testing.assert_allclose(layer(p.x, training=True), peer(x, training=True).numpy(), **near)
    for own, theirs in zip(layer.get_weights()[2:], peer.get_weights()[2:], strict=True):
        np.testing.assert_allclose(own, theirs, **near)


@pytest.mark.parametrize(("shape", "kind"), [((12, 3), "1d"), ((2, 3, 5), "1d"), ((2, 3, 2, 2), "2d")], ids=str)
def test_pytorch(shape, kind):
    """PyTorch's momentum is the share that is replaced, and its moving variance is of count - 1."""
    torch = pytest.importorskip("torch")
    steps = batches(shape, 1)
    gamma, beta = steps[0].gamma, steps[0].beta
    layer = BatchNormalization(
        1, momentum=1 - 0.2, epsilon=1e-5, ddof=1, gamma_initializer=gamma, beta_initializer=beta
    )
    peer = {"1d": torch.nn.BatchNorm1d, "2d": torch.nn.BatchNorm2d}[kind](shape[1], eps=1e-5, momentum=0.2)
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(gamma))
        peer.bias.copy_(torch.from_numpy(beta))
    for p in steps:
        x = torch.from_numpy(p.x).requires_grad_()
        peer.train()
        peer.zero_grad()
        y = peer(x)
        y.backward(torch.from_numpy(p.dy))
        np.testing.assert_allclose(layer(p.x, training=True), y.detach().numpy(), **near)
        np.testing.assert_allclose(layer.backward(p.dy), x.grad.numpy(), **near)
        np.testing.assert_allclose(layer.dgamma, peer.weight.grad.numpy(), **near)
        np.testing.assert_allclose(layer.dbeta, peer.bias.grad.numpy(), **near)
        np.testing.assert_allclose(layer.moving_mean, peer.running_mean.numpy(), **near)
        np.testing.assert_allclose(layer.moving_variance, peer.running_var.numpy(), **near)
        peer.eval()
        np.testing.assert_allclose(layer(p.x), peer(x).detach().numpy(), **near)
