"""More elements than an int32 counts: `pytest tests/test_large.py --large` takes 9 GB."""

from fractions import Fraction

import numpy as np
import pytest

import bnnumba
from tests.tools.problems import same_bits

BLOCK = 2**16
SIZE = 2**31 + 128


def exact_moments(block, counts):
    """Of integers, each of which there are `counts` of, as fractions."""
    n, total, squares = (int((counts * block**power).sum()) for power in range(3))
    return Fraction(total, n), Fraction(n * squares - total**2, n**2)


@pytest.mark.large
@pytest.mark.parametrize("features", [1, 128])
def test_statistics_and_normalize_in_place(features):
    block = np.random.default_rng(0).integers(-8, 9, BLOCK)
    x = np.resize((block + 1000).astype(np.float32), SIZE).reshape(-1, features)
    y, moments = bnnumba.batch_norm(x, out=x)
    assert moments.count == SIZE // features
    counts = np.full(BLOCK, SIZE // BLOCK) + (np.arange(BLOCK) < SIZE % BLOCK)
    for f in (0, features // 2, features - 1):
        mean, var = exact_moments(block[f::features], counts[f::features])
        assert abs(Fraction(float(moments.mean[f])) - 1000 - mean) <= Fraction(4 * 1000, 2**52)
        assert abs(Fraction(float(moments.var[f])) - var) <= var * Fraction(2, 2**23)
    one = np.resize((block + 1000).astype(np.float32), BLOCK).reshape(-1, features)
    expected = bnnumba.normalize(one, moments.mean, moments.var)
    assert same_bits(y[: len(one)], expected)
    rest = SIZE % BLOCK // features
    assert same_bits(y[-rest:], expected[:rest])
    assert same_bits(y[2**31 // features - len(one) : 2**31 // features], expected)
