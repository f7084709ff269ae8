"""Inputs before training beside what people write: images of uint8, tables with gaps, labelled cubes of xarray's.

As in `bench_batch_norm`, all is checked, and nothing is timed without --benchmark-only. Each library returns new arrays
in recycled memory.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import bnnumba
from bench.libraries import OURS
from bench.machine import THREADS
from bench.summary import Measured

IMAGES, FEW_IMAGES = (64, 224, 224, 3), (2, 8, 8, 3)
TABLE, SMALL_TABLE = (1_000_000, 32), (100, 32)
CUBE, SMALL_CUBE = (1460, 73, 144), (12, 4, 5)  # four years of days on a grid of 2.5 degrees


def images(small: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, FEW_IMAGES if small else IMAGES, dtype=np.uint8)
    mean, var, _ = bnnumba.moments(x)
    return {
        "x": x,
        "mean": mean,
        "var": var,
        "mean32": mean.astype(np.float32),
        "std32": np.sqrt(var, dtype=np.float32),
    }


def gaps(small: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SMALL_TABLE if small else TABLE, np.float32)
    x[rng.random(x.shape, np.float32) < 0.1] = np.nan
    return {"x": x}


def cube(small: bool) -> dict[str, Any]:
    xarray = pytest.importorskip("xarray")
    x = np.random.default_rng(0).standard_normal(SMALL_CUBE if small else CUBE, np.float32) + 280
    return {"x": xarray.DataArray(x, dims=("time", "lat", "lon"))}


def torch_images(given: dict[str, Any]) -> Callable[[], Any]:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(THREADS)
    x, mean, std = (torch.from_numpy(given[name]) for name in ("x", "mean32", "std32"))
    mean, std = mean / 255, std / 255

    def run() -> np.ndarray:
        return ((x / 255 - mean) / std).numpy()

    return run


def keras_images(given: dict[str, Any]) -> Callable[[], Any]:
    keras = pytest.importorskip("keras")
    layer = keras.layers.Normalization(mean=given["mean"], variance=given["var"])
    layer(given["x"][:1])
    return lambda: np.asarray(layer(given["x"]))


def our_cube(given: dict[str, Any]) -> Callable[[], Any]:
    standardize = pytest.importorskip("bnnumba.xarray").standardize
    return lambda: standardize(given["x"], "time").values


def standardized(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return (wide - wide.mean(0)) / wide.std(0)


# A pass: what it is given, the right result, and by library a function that prepares the call that is timed.
PASSES: dict[str, tuple[Callable, Callable, dict[str, Callable]]] = {
    "normalize uint8": (
        images,
        lambda g: (g["x"] - g["mean"]) / np.sqrt(g["var"]),
        {
            OURS: lambda g: lambda: bnnumba.normalize(g["x"], g["mean"], g["var"], epsilon=0),
            "NumPy": lambda g: lambda: (g["x"].astype(np.float32) - g["mean32"]) / g["std32"],
            "PyTorch": torch_images,
            "Keras": keras_images,
        },
    ),
    "moments uint8": (
        images,
        lambda g: np.stack([g["mean"], g["var"]]),
        {
            OURS: lambda g: lambda: np.stack(bnnumba.moments(g["x"])[:2]),
            "NumPy": lambda g: lambda: np.stack([g["x"].mean((0, 1, 2)), g["x"].var((0, 1, 2))]),
        },
    ),
    "moments with NaN": (
        gaps,
        lambda g: np.stack([np.nanmean(g["x"], 0, np.float64), np.nanvar(g["x"], 0, np.float64)]),
        {
            OURS: lambda g: lambda: np.stack(bnnumba.moments(g["x"], nan_policy="omit")[:2]),
            "NumPy": lambda g: lambda: np.stack([np.nanmean(g["x"], 0), np.nanvar(g["x"], 0)]),
        },
    ),
    "standardize a cube": (
        cube,
        lambda g: standardized(g["x"].values),
        {
            OURS: our_cube,
            "xarray": lambda g: lambda: ((g["x"] - g["x"].mean("time")) / g["x"].std("time")).values,
        },
    ),
}
CASES = [(name, library) for name, (*_, libraries) in PASSES.items() for library in libraries]


@pytest.mark.parametrize(("name", "library"), CASES)
def test_inputs(benchmark: Callable, name: str, library: str, measurements: list[Measured]) -> None:
    small = benchmark.disabled
    make, right, libraries = PASSES[name]
    given = make(small)
    run = libraries[library](given)
    np.testing.assert_allclose(run(), right(given), rtol=1e-3, atol=1e-3)

    benchmark.name, benchmark.group = library, f"{name} {given['x'].shape}"
    benchmark(run)
    if benchmark.enabled:
        measurements.append(Measured("inputs", name, library, benchmark.stats.stats.min))
