"""Keras's layer, computed here: a subclass of it, and the conversion of models; on TensorFlow, JAX and PyTorch.

A backend's module is imported when a layer is first called with it.
"""

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras":  # its backend is missing, as it says
        raise
    raise ModuleNotFoundError("bnnumba.keras needs Keras: pip install 'bnnumba[keras]'", name=error.name) from error

from bnnumba.keras.conversion import convert
from bnnumba.keras.layer import BatchNormalization

__all__ = ["BatchNormalization", "convert"]
