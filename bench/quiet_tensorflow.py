"""TensorFlow without its start-up messages, with as many threads as the other libraries."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf

from bench.machine import CORES, THREADS

if THREADS != CORES:  # else TensorFlow's default is right; it can be set only before the first operation
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)

__all__ = ["tf"]
