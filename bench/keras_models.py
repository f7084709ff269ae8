"""Keras on TensorFlow: training steps of two small models, and the layer alone: `python -m bench.keras_models`.

Three kinds of layer take turns in one process: Keras's, TensorFlow's fused operation in its place, and Keras's
converted to ours; and, for what a model costs without, none. Each time is the least of all turns.

    python -m bench.keras_models --turns 60 --picture keras.svg
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.progress import Progress

from bench.libraries import OURS, PEERS
from bench.machine import THREADS, recycle_memory
from bench.quiet_tensorflow import tf

import keras  # isort: skip  # after quiet_tensorflow, which sets the environment

import bnnumba.keras

KINDS = ("Keras", "fused op", OURS, "none")
SHAPES = ((128, 64), (32, 8, 8, 64), (64, 32, 32, 16), (32, 56, 56, 64))
WARM = 3


class Fused(keras.layers.BatchNormalization):
    """Keras's layer, by TensorFlow's fused operation: float32, channels last, the sample variance."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        del mask
        moving = self.moving_mean.value, self.moving_variance.value
        x = inputs if len(inputs.shape) == 4 else inputs[:, None, None]
        y, mean, var, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=moving[0],
            variance=moving[1],
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=bool(training),
        )
        if training:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(var)
        return tf.reshape(y, tf.shape(inputs))


def normalization(kind: str) -> Callable:
    """What makes the layers of a model."""
    none = partial(keras.layers.Activation, "linear")
    return {"fused op": Fused, "none": none}.get(kind, keras.layers.BatchNormalization)


def resnet(norm: Callable) -> keras.Model:
    """Three residual blocks for images of 32 x 32."""
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(norm()(layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)))
    for width, strides in ((16, 1), (32, 2), (64, 2)):
        y = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
        y = layers.ReLU()(norm()(y))
        y = norm()(layers.Conv2D(width, 3, padding="same", use_bias=False)(y))
        if strides > 1:
            x = norm()(layers.Conv2D(width, 1, strides=strides, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def mobilenet(norm: Callable) -> keras.Model:
    """Six depthwise-separable blocks for images of 64 x 64."""
    layers = keras.layers
    inputs = keras.Input((64, 64, 3))
    x = layers.ReLU(6.0)(norm()(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(inputs)))
    for width, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2)):
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU(6.0)(norm()(x))
        x = layers.ReLU(6.0)(norm()(layers.Conv2D(width, 1, use_bias=False)(x)))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


MODELS = {"ResNet, 64 x 32 x 32": (resnet, 64), "MobileNet, 32 x 64 x 64": (mobilenet, 32)}


def step_of(make: Callable, batch: int, kind: str) -> Callable:
    """One training step of a model."""
    keras.utils.set_random_seed(0)
    model = make(normalization(kind))
    if kind == OURS:
        bnnumba.keras.convert(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(batch, *model.input_shape[1:])), tf.float32)
    return partial(model.train_on_batch, x, tf.constant(rng.integers(0, 10, batch)))


def layer_of(shape: tuple[int, ...], kind: str) -> Callable:
    """Forward and gradient of one layer, in a `tf.function`."""
    layer = normalization(kind)()
    layer.build(shape)
    if kind == OURS:
        bnnumba.keras.convert(layer)
    x, dy = (tf.random.normal(shape, seed=seed) for seed in (0, 1))
    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function
    def run(x: Any, dy: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return [y, *tape.gradient(y, [x, *variables], dy)]

    return partial(run, x, dy)


def measure(rows: dict[str, dict[str, Callable]], turns: int) -> dict[str, dict[str, float]]:
    """The least seconds of each function, all of a row in turns."""
    times = {}
    with Progress() as bar:
        task = bar.add_task("turns", total=len(rows) * turns)
        for name, steps in rows.items():
            taken = {kind: [] for kind in steps}
            for turn in range(WARM + turns):
                for kind, step in steps.items():
                    begin = time.perf_counter()
                    step()
                    if turn >= WARM:
                        taken[kind].append(time.perf_counter() - begin)
                bar.advance(task, turn >= WARM)
            times[name] = {kind: min(each) for kind, each in taken.items()}
    return times


def report(times: dict[str, dict[str, float]]) -> str:
    """The table, in Markdown: milliseconds, and how many times faster than Keras's and the fused operation's."""
    lines = [f"| | {' | '.join(KINDS)} | over Keras | over fused op |", "|---" * (len(KINDS) + 3) + "|"]
    for name, row in times.items():
        cells = [f"{1e3 * row[kind]:.2f}" if kind in row else "" for kind in KINDS]
        gains = [f"{row[kind] / row[OURS]:.2f}x" for kind in KINDS[:2]]
        lines.append(f"| {name} | {' | '.join(cells + gains)} |")
    return "\n".join(lines)


def draw(times: dict[str, dict[str, float]], path: Path) -> None:
    """Draw how long each takes, over Keras's own layer."""
    colours = {"Keras": "#999999", "fused op": "#E69F00", OURS: PEERS[OURS].colour, "none": "#DDDDDD"}
    figure = Figure(figsize=(8, 0.9 * len(times) + 1), layout="constrained")
    panel = figure.subplots()
    for place, row in enumerate(times.values()):
        for index, (kind, seconds) in enumerate(row.items()):
            label = kind if place == 0 else None
            panel.barh(place + 0.2 * index - 0.3, seconds / row["Keras"], 0.18, color=colours[kind], label=label)
    panel.set_yticks(range(len(times)), times)
    panel.invert_yaxis()
    panel.set_xlabel("time over that of Keras's own layer")
    panel.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.keras_models", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--picture", type=Path, help="where to draw the table")
    options = parser.parse_args()
    recycle_memory()
    rows = {name: {kind: step_of(make, batch, kind) for kind in KINDS} for name, (make, batch) in MODELS.items()}
    rows |= {f"layer alone, {shape}": {kind: layer_of(shape, kind) for kind in KINDS[:3]} for shape in SHAPES}
    times = measure(rows, options.turns)
    print(f"Milliseconds of a training step, TensorFlow {tf.__version__}, {THREADS} threads\n")
    print(report(times))
    if options.picture:
        draw(times, options.picture)


if __name__ == "__main__":
    main()
