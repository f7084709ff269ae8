"""Keras's own tests of its layer, run with ours in its place, on the backend that KERAS_BACKEND names."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras.src.layers
import pytest

from bnnumba.keras import BatchNormalization

FILE = Path(keras.src.layers.__file__).parent / "normalization" / "batch_normalization_test.py"

if __name__ == "__main__":
    keras.src.layers.BatchNormalization = BatchNormalization
    options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", str(FILE.parent)]
    sys.exit(pytest.main([str(FILE), *options, *sys.argv[1:]]))
