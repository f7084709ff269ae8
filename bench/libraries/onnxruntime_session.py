"""ONNX Runtime on the CPU: a model that is one BatchNormalization."""

from collections.abc import Callable
from math import prod
from typing import ClassVar

import numpy as np
import onnxruntime
from onnx.parser import parse_model

from bench.cases import EPSILON, Problem
from bench.library import Library
from bench.machine import THREADS
from bench.passes import PASSES


class Session(Library):
    """A session for each pass, with its inputs and output bound to arrays that are made before.

    The feature axis of ONNX is 1. Channels-last data becomes (rows, features), which needs no transposition.
    """

    version = onnxruntime.__version__
    missing: ClassVar = {
        **dict.fromkeys(set(PASSES) - {"inference", "training_forward"}, "it has no gradients"),
        "moments": "its operator does not stop at the moments",
    }

    def __init__(self, problem: Problem) -> None:
        shape, axis = problem.case.single_axis
        self.shape = (prod(shape[:axis]), *shape[axis:])
        arrays = (
            problem.x.reshape(self.shape),
            *(f.flatten() for f in problem.features),
        )  # copies: training changes mean and var
        self.inputs = dict(zip(("x", "gamma", "beta", "mean", "var"), arrays, strict=True))

    def fetch(self, value: onnxruntime.OrtValue) -> np.ndarray:
        return value.numpy()

    def inference(self) -> Callable:
        return self._entry(training=False)

    def training_forward(self) -> Callable:
        return self._entry(training=True)

    def _entry(self, training: bool) -> Callable:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        model = self._model(training).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        for name, array in self.inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
        y = onnxruntime.OrtValue.ortvalue_from_numpy(np.full(self.shape, np.nan, np.float32))
        binding.bind_ortvalue_output("y", y)

        def run() -> onnxruntime.OrtValue:
            session.run_with_iobinding(binding)
            return y

        return run

    def _model(self, training: bool):
        data, feature = (f"float[{','.join(map(str, shape))}]" for shape in (self.shape, self.shape[1:2]))
        outputs = "y, moving_mean, moving_var" if training else "y"  # the last two must be named, but need not be bound
        return parse_model(f"""
            <ir_version: 8, opset_import: ["" : 15]>
            bench ({data} x, {feature} gamma, {feature} beta, {feature} mean, {feature} var) => ({data} y) {{
                {outputs} = BatchNormalization <epsilon = {EPSILON}, training_mode = {int(training)}>
                    (x, gamma, beta, mean, var)
            }}""")
