"""merge_moments: however data is split and merged, mean and variance are those of one pass over all of it."""

import copy
import json
import pickle
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bnnumba
from bnnumba import Moments, merge_moments
from bnnumba.pairs import Pair, quotient
from bnnumba.pooling import Spread, pooled
from tests.tools import bounds, oracle
from tests.tools.problems import FLOATS, problem, same_bits


def in_order(parts):
    return reduce(merge_moments, parts)


def from_the_end(parts):
    return reduce(lambda later, earlier: merge_moments(earlier, later), reversed(parts))


def as_a_tree(parts):
    while len(parts) > 1:
        parts = [merge_moments(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]


def check_merged(x, cuts, merge):
    dtype = x.dtype
    merged = merge([bnnumba.moments(part) for part in np.split(x, cuts)])
    exact = oracle.batch_norm(x)
    bounds.check("mean", merged.mean, exact.mean, 8 * bounds.E64 * abs(x).max(axis=0))
    bounds.check("var", merged.var, exact.var, bounds.var(dtype, exact.mean, exact.var))
    assert merged.count == len(x)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(FLOATS),
    st.lists(st.integers(0, 60), max_size=12),
    st.sampled_from([0.0, 1e2, -1e4, 1e6, 1e9, 1e12]),
    st.sampled_from([in_order, from_the_end, as_a_tree]),
)
def test_any_split_and_any_order(seed, dtype, cuts, offset, merge):
    check_merged(problem((60, 3), dtype=dtype, offset=offset, seed=seed).x, sorted(cuts), merge)


@pytest.mark.parametrize("merge", [in_order, from_the_end, as_a_tree])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("size", "offset", "scale"), [(1, 1e6, 1), (3, 1e8, 1), (7, 1, 1e-7), (5, 0, 1), (2, -1e300, 1e290)]
)
def test_a_great_many_batches(size, offset, scale, dtype, merge):
    """Each merge may lose nothing: with float64's digits alone, the variance is off by 1e9 times its bound here."""
    if abs(offset) > 1e37 and dtype == np.float32:
        offset, scale = offset * 1e-263, scale * 1e-263
    x = problem((5000 * size, 2), dtype=dtype, offset=offset, scale=scale).x
    if abs(offset) >= 1e300:
        return check_mean_only(x, size, merge)
    return check_merged(x, np.arange(size, len(x), size), merge)


def check_mean_only(x, size, merge):
    """The variance is infinite."""
    merged = merge([bnnumba.moments(part) for part in np.split(x, np.arange(size, len(x), size))])
    bounds.check("mean", merged.mean, oracle.batch_norm(x).mean, 8 * bounds.E64 * abs(x).max(axis=0))


def test_batches_of_very_different_sizes_and_places():
    """One value far away among 2**17: its share is small, its square is not."""
    x = problem((2**17, 2), dtype=np.float64).x
    x[77] += 1e6
    check_merged(x, [1, 5, 77, 78, 1000, 2**16], in_order)


def test_equal_values_have_no_variance():
    parts = [bnnumba.moments(np.full((n, 2), 0.1)) for n in (3, 1, 10, 7)]
    merged = in_order(parts)
    assert (merged.mean == 0.1).all()
    assert (merged.var == 0).all()


def test_an_empty_side_leaves_the_other_as_it_is():
    some, none = bnnumba.moments(problem((7, 3)).x), bnnumba.moments(np.empty((0, 3), np.float32))
    for merged in (merge_moments(some, none), merge_moments(none, some)):
        assert merged.count == 7
        assert same_bits(merged.mean, some.mean)
        assert same_bits(merged.var, some.var)
        assert not np.shares_memory(merged.mean, some.mean)
        assert not np.shares_memory(merged.var, some.var)
    assert merge_moments(none, none).count == 0


def test_each_feature_has_its_own_counts():
    """Where one is 0, the other side stays, whatever is there: an infinity, and the digits behind the mean."""
    rng = np.random.default_rng(0)
    a, b = (Spread(*(Pair(high, 1e-18 * high) for high in rng.uniform(1, 2, (2, 5)))) for _ in range(2))
    a.mean.high[0] = b.mean.high[1] = np.inf
    counts = np.array([3, 0, 0, 4, 5]), np.array([0, 3, 0, 7, 2])
    union = pooled(counts[0], a, counts[1], b)
    for f, (count_a, count_b) in enumerate(zip(*(count.tolist() for count in counts), strict=True)):
        (mean, var), one, other = (_feature(spread, f) for spread in (union, a, b))
        if count_a == 0 or count_b == 0:
            assert (mean, var) == (one if count_b == 0 else other)
            continue
        count = count_a + count_b
        exact = (count_a * one[1] + count_b * other[1]) / count
        exact += count_a * count_b * (one[0] - other[0]) ** 2 / count**2
        assert abs(var - exact) <= Fraction(2) ** -98 * exact
        exact = (count_a * one[0] + count_b * other[0]) / count
        assert abs(mean - exact) <= Fraction(2) ** -100 * exact


def _feature(spread, f):
    """Mean and variance, exactly; infinities as they are."""
    pairs = [Pair(pair.high[f], pair.low[f]) for pair in spread]
    return tuple(exactly(pair) if np.isfinite(pair.high) else pair.high for pair in pairs)


@pytest.mark.parametrize("factor", [2.0**-1070, 1.0, 2.0**1020])
def test_the_size_of_counts_does_not_matter(factor):
    a, b = (bnnumba.moments(problem((9, 3), dtype=np.float64, seed=seed).x) for seed in (0, 1))
    whole = merge_moments(a._replace(count=3.0), b._replace(count=5.0))
    scaled = merge_moments(a._replace(count=3 * factor), b._replace(count=5 * factor))
    np.testing.assert_allclose(scaled.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(scaled.var, whole.var, rtol=1e-15)


def test_a_poisoned_feature_stays_alone():
    x = problem((20, 3), dtype=np.float64, offset=5.0).x
    clean = as_a_tree([bnnumba.moments(part) for part in np.split(x, 4)])
    x[3, 1], x[17, 1] = np.nan, np.inf
    poisoned = as_a_tree([bnnumba.moments(part) for part in np.split(x, 4)])
    for one, other in zip(poisoned[:2], clean[:2], strict=True):
        assert np.isnan(one[1])
        assert (one[[0, 2]] == other[[0, 2]]).all()


def test_moments_are_a_plain_named_tuple_of_three():
    moments = merge_moments(*(bnnumba.moments(problem((9, 2, 3), (1, 2), seed=seed).x, (1, 2)) for seed in (0, 1)))
    mean, var, count = moments
    assert mean.shape == var.shape == (2, 3)
    assert mean.dtype == var.dtype == np.float64
    assert (type(count), Moments._fields) == (int, ("mean", "var", "count"))
    assert repr(moments).startswith("Moments(mean=")
    for other in (pickle.loads(pickle.dumps(moments)), copy.deepcopy(moments), Moments(*moments)):
        assert type(other) is Moments
        again = merge_moments(other, bnnumba.moments(np.ones((5, 2, 3)), (1, 2)))
        np.testing.assert_allclose(again.var, merge_moments(moments, bnnumba.moments(np.ones((5, 2, 3)), (1, 2))).var)


def test_moments_of_no_feature_axis():
    x = problem((9, 2), (), np.float64, offset=3.0).x
    merged = merge_moments(bnnumba.moments(x[:4], ()), bnnumba.moments(x[4:], ()))
    assert isinstance(merged.mean, np.ndarray)
    assert merged.mean.shape == merged.var.shape == ()
    np.testing.assert_allclose(merged.var, x.var(), rtol=1e-14)


# ---- pairs, by exact arithmetic

NUMBERS = st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100)


def exactly(pair):
    return Fraction(float(pair.high)) + Fraction(float(pair.low))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_pairs_have_twice_the_digits(a, b, small, smaller):
    one, other = quotient(np.float64(a), 3.0), quotient(np.float64(b), np.float64(7.0))
    assert abs(exactly(one) - Fraction(a) / 3) <= Fraction(2) ** -104 * abs(Fraction(a))
    product, total = exactly(one) * exactly(other), exactly(one) + exactly(other)
    assert abs(exactly(one * other) - product) <= Fraction(2) ** -100 * abs(product)
    assert abs(exactly(one + other) - total) <= Fraction(2) ** -100 * abs(total)
    assert abs(exactly(one - other) - exactly(one) + exactly(other)) <= Fraction(2) ** -100 * (
        abs(exactly(one)) + abs(exactly(other))
    )


def test_pairs_that_are_not_finite_are_as_floats():
    """Also after what rounding took from an infinity, which is NaN, has gone along."""
    numbers, ones = np.array([1.0, np.inf, np.nan, 1e308]), Pair(np.ones(4), np.zeros(4))
    pairs = Pair(numbers, np.zeros(4))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(((pairs + pairs) * ones + ones).high, numbers + numbers + 1)
        np.testing.assert_array_equal(((pairs * pairs) - ones).high, numbers * numbers - 1)


@pytest.mark.parametrize("by", ["npz", "json"])
def test_moments_are_stored_with_all_digits(by, tmp_path):
    x = problem((300, 3), -1, np.float64, offset=1e6).x
    parts = [bnnumba.moments(part) for part in np.split(x, 3)]
    stored = []
    for part in parts:
        if by == "npz":
            np.savez(tmp_path / "moments.npz", **part.to_dict())
            with np.load(tmp_path / "moments.npz") as file:
                stored.append(Moments.from_dict(file))
        else:
            lists = {name: np.asarray(value).tolist() for name, value in part.to_dict().items()}
            stored.append(Moments.from_dict(json.loads(json.dumps(lists))))
    for part, restored in zip(parts, stored, strict=True):
        assert type(restored.count) is int
        assert all(same_bits(np.asarray(a), np.asarray(b)) for a, b in zip(part, restored, strict=True))
    expected, found = (reduce(merge_moments, each) for each in (parts, stored))
    assert same_bits(found.var, expected.var)
    whole = {"mean": [1, 2], "mean_low": [0, 0], "var": [1, 1], "var_low": [0, 0], "count": 3}  # as some write 1.0
    assert Moments.from_dict(whole).mean.dtype == np.float64
    assert type(Moments.from_dict(bnnumba.moments(x, sample_weight=np.ones((300, 1))).to_dict()).count) is float


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mean_low": None}, TypeError, "mean_low must be an array of real floats"),
        ({"var": [1.0, 2.0]}, ValueError, r"var must have shape \(3,\), got \(2,\)"),
        ({"count": -1}, ValueError, "count must be >= 0"),
        ({"more": 1}, ValueError, "stored must be a mapping of mean, mean_low, var, var_low, count, got dict"),
    ],
)
def test_what_is_no_stored_moments(change, error, words):
    stored = bnnumba.moments(problem((4, 3)).x).to_dict()
    with pytest.raises(error, match=words):
        Moments.from_dict({**stored, **change})
    with pytest.raises(ValueError, match="stored must be a mapping"):
        Moments.from_dict(list(stored))
