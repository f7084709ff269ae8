"""The libraries as a table. A peer is one row here, and one file of this package.

A file is imported only where its library is measured, so every library may be missing. `bench.library` says what the
class in a file must do. The benchmarks, the report, its picture and the README's tables all read this table, and show
the libraries in its order.
"""

from typing import NamedTuple

OURS = "bnnumba"  # the library that the others are compared with


class Peer(NamedTuple):
    """One row.

    path: "module:Class", a file of this package and the `bench.library.Library` in it.
    title: the name in the README and in the picture.
    colour, marker: the library's in the picture, as Matplotlib writes them.
    reported: whether `python -m bench` measures the library by default.
    half: dtypes other than float32 that `bench_half` measures the library with.
    """

    path: str
    title: str
    colour: str
    marker: str
    reported: bool = True
    half: tuple[str, ...] = ()


# The colours are Okabe and Ito's, which colour-blind readers can tell apart. No two rows share a colour or a marker.
PEERS = {
    OURS: Peer("bnnumba_forms:Functions", "bnnumba", "#222222", "o", half=("float16", "bfloat16")),
    "bnnumba serial": Peer("bnnumba_forms:SerialKernels", "bnnumba serial", "#000000", "|", reported=False),
    "numpy": Peer("numpy_plain:Plain", "NumPy", "#999999", "X"),
    "tensorflow": Peer("tensorflow_fused:FusedOp", "TensorFlow fused op", "#56B4E9", "^"),
    "keras": Peer("keras_layer:Layer", "Keras layer", "#0072B2", "v"),
    "torch": Peer("torch_native:NativeOps", "PyTorch", "#E69F00", "s", half=("bfloat16",)),
    "torch compiled": Peer("torch_compiled:Compiled", "PyTorch compiled", "#D55E00", "*"),
    "jax": Peer("jax_jit:Compiled", "JAX jit", "#009E73", "D"),
    "onnxruntime": Peer("onnxruntime_session:Session", "ONNX Runtime", "#CC79A7", "P"),
    "onednn": Peer("onednn:Primitives", "oneDNN", "#F0E442", "h"),
}


def title(name: str) -> str:
    """A library's title; any other name, such as a table's heading, stays as it is."""
    return PEERS[name].title if name in PEERS else name
