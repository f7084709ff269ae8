"""The largest error of batch normalization, here and elsewhere: `python -m tests.tools.accuracy` prints it as Markdown.

Each entry is the largest |y - exact| over all elements of one training forward pass, without gamma and beta, epsilon
1e-3. The data is float32 of shape (32, 28, 28, 64), normal with standard deviation 1 around the mean in the column's
head, and every library gets the same numbers, in the memory order of its row. `exact` is the oracle's y of those
float32 numbers, so that rounding the data itself counts for nothing.
"""

import importlib.util

import numpy as np

from bnnumba import batch_norm
from tests.tools import oracle

SHAPE, EPSILON = (32, 28, 28, 64), 1e-3
OFFSETS = (0.0, 1e2, 1e4, 1e6)
LAYOUTS = {"channels last": -1, "channels first": 1}  # the layout's feature axis


def bnnumba_y(x, axis):
    return batch_norm(x, feature_axis=axis, epsilon=EPSILON)[0]


def numpy_y(x, axis):
    """Two passes in float32, as one would write them."""
    reduced = oracle.reduced_axes(x.ndim, axis)
    mean, var = x.mean(axis=reduced, keepdims=True), x.var(axis=reduced, keepdims=True)
    return (x - mean) / np.sqrt(var + np.float32(EPSILON))


def tensorflow_y(x, axis):
    import tensorflow as tf  # noqa: PLC0415

    ones, zeros = tf.ones(x.shape[axis]), tf.zeros(x.shape[axis])
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=ones, offset=zeros, mean=[], variance=[], epsilon=EPSILON, data_format="NHWC", is_training=True
    ).y.numpy()


def torch_y(x, axis):
    import torch  # noqa: PLC0415

    channels_first = torch.from_numpy(np.moveaxis(x, axis, 1))  # a view: its memory order stays that of x
    y = torch.nn.functional.batch_norm(channels_first, None, None, training=True, eps=EPSILON)
    return np.moveaxis(y.numpy(), 1, axis)


# Name, the module that it needs, what it does, and the layouts that it takes.
LIBRARIES = (
    ("bnnumba", "bnnumba", bnnumba_y, tuple(LAYOUTS)),
    ("NumPy, float32", "numpy", numpy_y, tuple(LAYOUTS)),
    ("TensorFlow fused op", "tensorflow", tensorflow_y, ("channels last",)),
    ("PyTorch", "torch", torch_y, tuple(LAYOUTS)),
)


def data(offset, layout, shape=SHAPE):
    """The same numbers in either layout."""
    x = (offset + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(x, -1, LAYOUTS[layout]))


def largest_errors(shape=SHAPE):
    """Rows of the table: library, layout, an error for each offset; None where the library is not installed."""
    rows = {
        (name, layout): [] if importlib.util.find_spec(module) else None
        for name, module, _, layouts in LIBRARIES
        for layout in layouts
    }
    for offset in OFFSETS:
        for layout, axis in LAYOUTS.items():
            x = data(offset, layout, shape)
            exact = oracle.batch_norm(x, feature_axis=axis, epsilon=EPSILON).y
            for name, _, function, _ in LIBRARIES:
                if rows.get((name, layout)) is not None:
                    rows[name, layout].append(float(abs(function(x, axis) - exact).max()))
    return rows


def markdown(rows):
    """The rows as a table."""
    heads = ["largest error of y", "layout", *(f"mean {offset:g}" for offset in OFFSETS)]
    lines = [heads, ["---"] * len(heads)]
    for (name, layout), errors in rows.items():
        cells = ["not installed"] * len(OFFSETS) if errors is None else [f"{error:.1e}" for error in errors]
        lines.append([name, layout, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown(largest_errors()))
