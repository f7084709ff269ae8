"""Standardizer beside scikit-learn's StandardScaler, on a table of a million rows; checked, and then timed.

As in `bench_batch_norm`, nothing is timed without --benchmark-only. Both return new arrays in recycled memory.
"""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from bench.libraries import OURS
from bench.summary import Measured
from bnnumba.sklearn import Standardizer

SHAPE, SMALL = (1_000_000, 32), (100, 32)
ESTIMATORS = {OURS: Standardizer, "StandardScaler": StandardScaler}
STEPS = {
    "fit": lambda estimator, x: estimator.fit(x).mean_,
    "transform": lambda estimator, x: estimator.transform(x),
    "inverse transform": lambda estimator, x: estimator.inverse_transform(x),
}


def right(step: str, x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    mean, std = np.nanmean(wide, axis=0), np.nanstd(wide, axis=0)
    return {"fit": mean, "transform": (wide - mean) / std, "inverse transform": wide * std + mean}[step]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("step", STEPS)
def test_standardizer(benchmark: Callable, step: str, missing: bool, name: str, measurements: list[Measured]) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SMALL if benchmark.disabled else SHAPE, np.float32) * 3 + 5
    if missing:
        x[rng.random(x.shape, np.float32) < 0.1] = np.nan
    estimator = ESTIMATORS[name]().fit(x)
    np.testing.assert_allclose(STEPS[step](estimator, x), right(step, x), rtol=0, atol=1e-5)

    benchmark.name, benchmark.group = name, f"{step} {x.shape}, {'with NaN' if missing else 'complete'}"
    benchmark(STEPS[step], estimator, x)
    if benchmark.enabled:
        case = "missing" if missing else "complete"
        measurements.append(Measured(case, step, name, benchmark.stats.stats.min))
