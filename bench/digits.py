"""Train on the 1797 handwritten digits of scikit-learn, with and without batch normalization: `python -m bench.digits`.

The network is Dense(64, relu), batch normalization, Dense(10, softmax), in NumPy. SGD minimizes the cross-entropy.
Where TensorFlow is installed, Keras trains the same networks from the same weights, on the same batches in the same
order.

`mpiexec -n 4 python -m mpi4py -m bench.digits --mpi` spreads every batch over 4 processes, which train one network.

What the table shows: with batch normalization the high learning rate works, and raw inputs are as good as standardized
ones. At a learning rate that suits it, the network without batch normalization is as good after some epochs.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import NamedTuple

import numpy as np
from rich.progress import Progress
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bnnumba import BatchNormalization

HIDDEN, CLASSES = 64, 10
RATES = (0.03, 2.0)  # all networks learn at the first; without batch normalization, the second is too high
# An epoch has 44 steps. With Keras's default, 0.99, the moving averages would remember their start for several epochs.
MOMENTUM = 0.9
NETWORKS = {"without batch normalization": False, "with batch normalization": True}


class Ranks(NamedTuple):
    """How several processes train one network: this process's number, layer and share of a batch; sums over all."""

    rank: int
    layer: type[BatchNormalization]
    share: Callable[[np.ndarray], np.ndarray]
    add_up: Callable[[np.ndarray], np.ndarray]


ALONE = Ranks(0, BatchNormalization, lambda batch: batch, lambda gradient: gradient)


def ranks_of_mpi() -> Ranks:
    from mpi4py import MPI  # noqa: PLC0415  # an extra

    from bnnumba.mpi import SyncBatchNormalization  # noqa: PLC0415

    comm = MPI.COMM_WORLD
    return Ranks(
        comm.rank, SyncBatchNormalization, lambda batch: np.array_split(batch, comm.size)[comm.rank], comm.allreduce
    )


class Digits(NamedTuple):
    """Images (n, 64), float32, and labels (n,)."""

    x_train: np.ndarray
    x_test: np.ndarray
    train: np.ndarray
    test: np.ndarray


class Task(NamedTuple):
    """One training. start: the weights of both Dense layers, whose biases start at 0.

    batches: indices of training images, of shape (epochs, steps, batch size).
    """

    digits: Digits
    with_bn: bool
    rate: float
    start: tuple[np.ndarray, np.ndarray]
    batches: np.ndarray
    ranks: Ranks = ALONE


class Result(NamedTuple):
    """Accuracy on the test images (inference by the moving averages), and seconds per epoch."""

    accuracy: float
    seconds: float


class Network:
    """The network in NumPy; `bn` is None without batch normalization."""

    def __init__(self, start: tuple[np.ndarray, np.ndarray], with_bn: bool, ranks: Ranks) -> None:
        self.w1, self.w2 = (weights.copy() for weights in start)
        self.b1, self.b2 = np.zeros(HIDDEN, np.float32), np.zeros(CLASSES, np.float32)
        self.bn = ranks.layer(momentum=MOMENTUM) if with_bn else None
        self.ranks = ranks

    def predict(self, x: np.ndarray) -> np.ndarray:
        hidden = self._hidden(x)
        normalized = self.bn(hidden) if self.bn else hidden
        return (normalized @ self.w2 + self.b2).argmax(axis=1)

    def step(self, x: np.ndarray, labels: np.ndarray, rate: float, size: int) -> None:
        """Take one step of SGD on the batch's mean cross-entropy. size: of the whole batch, all shares together."""
        hidden = self._hidden(x)
        normalized = self.bn(hidden, training=True) if self.bn else hidden
        to_logits = softmax(normalized @ self.w2 + self.b2, axis=1)
        to_logits[np.arange(len(labels)), labels] -= 1
        to_logits /= size

        to_normalized = to_logits @ self.w2.T
        to_hidden = self.bn.backward(to_normalized) if self.bn else to_normalized
        to_hidden[hidden == 0] = 0

        moves = [(self.w1, x.T @ to_hidden), (self.b1, to_hidden.sum(axis=0))]
        moves += [(self.w2, normalized.T @ to_logits), (self.b2, to_logits.sum(axis=0))]
        moves += [(self.bn.gamma, self.bn.dgamma), (self.bn.beta, self.bn.dbeta)] if self.bn else []
        for weights, gradient in moves:
            np.subtract(weights, rate * self.ranks.add_up(gradient), out=weights)

    def _hidden(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x @ self.w1 + self.b1, 0)


def train_numpy(task: Task, after_epoch: Callable) -> Result:
    """Train in NumPy. Numba may compile in the first epoch, which is not timed unless it is the only one."""
    network, digits, ends = Network(task.start, task.with_bn, task.ranks), task.digits, []
    with np.errstate(over="ignore", invalid="ignore"):  # the high rate may overflow; the accuracy shows it
        for epoch in task.batches:
            ends.append(time.perf_counter())
            for batch in epoch:
                own = task.ranks.share(batch)
                network.step(digits.x_train[own], digits.train[own], task.rate, len(batch))
            after_epoch()
        ends.append(time.perf_counter())
        accuracy = np.mean(network.predict(digits.x_test) == digits.test)
    counted = ends[1:] if len(ends) > 2 else ends
    return Result(accuracy, np.diff(counted).mean())


def train_keras(task: Task, after_epoch: Callable, convert: bool = False) -> Result:
    """Train in Keras, in one call of `fit` over the batches of all epochs, which has the least overhead.

    convert: whether the layers are converted to ours.

    Another fit traces the model on one epoch before; then the weights are set back.
    """
    import bnnumba.keras  # noqa: PLC0415
    from bench.libraries.keras_layer import keras  # noqa: PLC0415  # slow to import, and perhaps not installed

    epochs, steps, size = task.batches.shape
    normalization = [keras.layers.BatchNormalization(momentum=MOMENTUM)] if task.with_bn else []
    hidden, output = keras.layers.Dense(HIDDEN, "relu"), keras.layers.Dense(CLASSES)
    model = keras.Sequential([keras.layers.Input((task.start[0].shape[0],)), hidden, *normalization, output])
    for layer, weights in zip((hidden, output), task.start, strict=True):
        layer.set_weights([weights, np.zeros(weights.shape[1])])
    if convert:
        bnnumba.keras.convert(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)  # the loss includes the softmax, for accuracy
    model.compile(keras.optimizers.SGD(task.rate), loss, steps_per_execution=steps, jit_compile=False)

    digits, start = task.digits, model.get_weights()
    fit = {"batch_size": size, "shuffle": False, "verbose": 0}
    first, every = task.batches[0].ravel(), task.batches.ravel()
    model.fit(digits.x_train[first], digits.train[first], **fit)
    model.set_weights(start)
    begin = time.perf_counter()
    model.fit(digits.x_train[every], digits.train[every], **fit)
    seconds = (time.perf_counter() - begin) / epochs
    after_epoch(epochs)
    predicted = np.argmax(model(digits.x_test, training=False), axis=1)
    return Result(np.mean(predicted == digits.test), seconds)


TRAINERS = {
    "NumPy and bnnumba": train_numpy,
    "Keras": train_keras,
    "Keras, converted": partial(train_keras, convert=True),
}


def load_inputs() -> dict[str, Digits]:
    """Raw pixels, 0 to 16, and standardized ones. The same fifth of the images is always the test."""
    x, labels = load_digits(return_X_y=True)
    x_train, x_test, train, test = train_test_split(
        x.astype(np.float32), labels, test_size=0.2, random_state=0, stratify=labels
    )
    scaler = StandardScaler().fit(x_train)
    return {
        "raw": Digits(x_train, x_test, train, test),
        "standardized": Digits(scaler.transform(x_train), scaler.transform(x_test), train, test),
    }


def make_start(rng: np.random.Generator, inputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the Dense layers' weights as Keras does: Glorot and Bengio's uniform distribution."""
    limits = [(n, m, (6 / (n + m)) ** 0.5) for n, m in ((inputs, HIDDEN), (HIDDEN, CLASSES))]
    w1, w2 = (rng.uniform(-limit, limit, (n, m)).astype(np.float32) for n, m, limit in limits)
    return w1, w2


def make_batches(rng: np.random.Generator, images: int, epochs: int, size: int) -> np.ndarray:
    """Shuffle for every epoch, and drop the images that do not fill a batch: (epochs, steps, size)."""
    steps = images // size
    return np.stack([rng.permutation(images)[: steps * size].reshape(steps, size) for _ in range(epochs)])


def run(trainers: list[str], epochs: int, batch_size: int, seed: int, ranks: Ranks) -> None:
    """Train every network on every kind of input, and print the table."""
    inputs, rng = load_inputs(), np.random.default_rng(seed)
    images, pixels = inputs["raw"].x_train.shape
    start, batches = make_start(rng, pixels), make_batches(rng, images, epochs, batch_size)
    rows = list(product(inputs, RATES, NETWORKS))
    lines = []
    with Progress(disable=ranks.rank > 0) as bar:
        epoch = bar.add_task("epochs", total=len(rows) * len(trainers) * epochs)
        for kind, rate, network in rows:
            task = Task(inputs[kind], NETWORKS[network], rate, start, batches, ranks)
            results = [TRAINERS[name](task, partial(bar.advance, epoch)) for name in trainers]
            cells = "".join(f"{r.accuracy:14.1%}{1e3 * r.seconds:8.1f} ms" for r in results)
            lines.append(f"{kind:14}{rate:<8}{network:28}{cells}")
    if ranks.rank > 0:
        return
    print(f"\nAccuracy on {len(inputs['raw'].test)} test images after {epochs} epochs, and time per epoch\n")
    print(" " * 50 + "".join(f"{name:>25}" for name in trainers))
    print(f"{'inputs':14}{'rate':8}{'network':28}" + f"{'accuracy':>14}{'epoch':>11}" * len(trainers))
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.digits", description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the start and of the order of the batches")
    parser.add_argument("--no-keras", action="store_true", help="train in NumPy only")
    parser.add_argument("--mpi", action="store_true", help="on all ranks of mpiexec together, in NumPy only")
    options = parser.parse_args()
    ranks = ranks_of_mpi() if options.mpi else ALONE
    trainers, reason = list(TRAINERS), None
    if options.no_keras or options.mpi:
        reason = "--no-keras" if options.no_keras else "--mpi"
    elif not (find_spec("tensorflow") and find_spec("keras")):
        reason = "it is not installed, or not with TensorFlow"
    if reason:
        trainers = [name for name in trainers if "Keras" not in name]
    if reason and ranks.rank == 0:
        print("Keras is left out:", reason)
    run(trainers, options.epochs, options.batch_size, options.seed, ranks)


if __name__ == "__main__":
    main()
