"""How long imports and the first training step of a process take: `python -m bench.startup`.

A step is a forward and a backward pass over float32 data, with the kernels in the disk cache (warm) or with an empty
cache (cold). Each time is the shortest of several processes. The goals: bnnumba's import takes 0.06 s more than
Numba's; a step takes 0.25 s warm and 10 s cold.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track
from rich.table import Table

SHAPES = {"(32, 64)": -1, "(4096, 64)": -1, "(32, 64, 28, 28)": 1}  # without threads; with threads, in each layout
COLD, WARM = 2, 5  # processes

CODE = """
import json, sys
from time import perf_counter as now
start = now()
import numba
with_numba = now()
import bnnumba
imported = now()
import numpy as np
x = np.random.default_rng(0).standard_normal({shape}, np.float32)
ready = now()
y, moments = bnnumba.batch_norm(x, feature_axis={axis})
bnnumba.batch_norm_backward(y, x, *moments[:2], feature_axis={axis})
print(json.dumps([with_numba - start, imported - with_numba, now() - ready]))
"""
ROOT = Path(__file__).parent.parent


def seconds(shape: str, axis: int, cache: str) -> list[float]:
    """Seconds of importing Numba, of importing bnnumba after it, and of a step, in a new process."""
    code = CODE.format(shape=shape, axis=axis)
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    table = Table("seconds, the fewest", "import numba", "import bnnumba", "step, cold", "step, warm", box=None)
    for shape, axis in track(SHAPES.items(), "starting"):
        colds = []
        for _ in range(COLD):
            with TemporaryDirectory() as cache:
                colds.append(seconds(shape, axis, cache)[2])
                warm = [min(times) for times in zip(*(seconds(shape, axis, cache) for _ in range(WARM)), strict=True)]
        table.add_row(shape, *(f"{time:.3f}" for time in (warm[0], warm[1], min(colds), warm[2])))
    Console().print(table)


if __name__ == "__main__":
    main()
