"""Interrupts at any moment: `python -m tests.processes.interrupts`.

With an empty cache, the first ones come while kernels compile.
"""

import signal

import numpy as np

from bnnumba import BatchNormalization
from tests.tools.problems import problem

SHAPES = ((64, 5), (12_000, 64))  # serial, and with threads
PAUSES = np.random.default_rng(0).uniform(1e-5, 0.003, 300)  # seconds: a step with threads takes about 2 ms


def new_layer(p):
    layer = BatchNormalization(momentum=0.5)
    layer.build(p.x.shape)
    return layer


def moving(layer):
    return [weight.tobytes() for weight in layer.get_weights()[2:]]


def step(layer, p):
    y = layer(p.x, training=True)
    return [y.tobytes(), layer.backward(p.dy).tobytes(), *moving(layer)]


def interrupted(call, pause):
    """Whether an interrupt came before the call's end."""
    try:
        signal.setitimer(signal.ITIMER_REAL, pause)
        call()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


def while_compiling(p):
    """Numba would not survive some of these interrupts; so they come when a kernel is compiled, and before it runs."""
    layer = new_layer(p)
    before = moving(layer)
    assert interrupted(lambda: layer(p.x, training=True), 0.1)
    assert moving(layer) == before
    layer(p.x, training=True)
    assert interrupted(lambda: layer.backward(p.dy), 0.1)
    assert layer.dgamma is None
    layer.backward(p.dy)


def while_running(p):
    """A call's effect on the moving statistics is whole, or none."""
    count = 0
    for pause in PAUSES:
        layer, twin = new_layer(p), new_layer(p)
        before = moving(layer)
        twin(p.x, training=True)
        count += interrupted(lambda layer=layer: step(layer, p), pause)
        assert moving(layer) in (before, moving(twin))
    assert count, "no interrupt came in time"


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    for shape in SHAPES:
        p = problem(shape, offset=3.0)
        while_compiling(p)
        expected = step(new_layer(p), p)
        while_running(p)
        assert step(new_layer(p), p) == expected
    print("right")


if __name__ == "__main__":
    main()
