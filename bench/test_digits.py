"""The example on real data learns."""

import numpy as np
import pytest

from bench.digits import Task, load_inputs, make_batches, make_start, train_numpy


@pytest.mark.parametrize("inputs", ["raw", "standardized"])
def test_two_epochs_at_the_high_rate_reach_a_sensible_accuracy(inputs: str) -> None:
    digits, rng = load_inputs()[inputs], np.random.default_rng(0)
    images, pixels = digits.x_train.shape
    start, batches = make_start(rng, pixels), make_batches(rng, images, epochs=2, size=32)
    accuracy = {bn: train_numpy(Task(digits, bn, 2.0, start, batches), lambda: None).accuracy for bn in (False, True)}
    assert accuracy[True] > 0.85
    assert accuracy[True] > accuracy[False] + 0.1
