"""PyTorch's training forward under `torch.compile`, where that is faster than the operation itself."""

import os
import shutil
from collections.abc import Callable
from typing import ClassVar

import torch

from bench.cases import Case, Problem
from bench.libraries.torch_native import NativeOps
from bench.library import Library
from bench.passes import PASSES

SLOWER = "calling the operation (`torch`) is as fast or faster"


class Compiled(Library):
    """The native operation, rewritten by Inductor in C++ for the shape: twice as fast with channels first.

    Elsewhere it did not win: it took 1.2 to 1.5 times as long with channels last, 1.0 to 1.5 times as long in
    backward, and at least as long in inference.
    """

    version = torch.__version__
    missing: ClassVar = dict.fromkeys(set(PASSES) - {"training_forward"}, SLOWER)

    def __init__(self, problem: Problem) -> None:
        torch.compiler.reset()  # otherwise it stops compiling a function after a few shapes
        self.native = NativeOps(problem)
        self.fetch = self.native.fetch

    @classmethod
    def refuses(cls, case: Case) -> str:
        if case.channels_last:
            return SLOWER
        compilers = (os.environ.get("CXX", "g++"), "clang++")
        return "" if any(map(shutil.which, compilers)) else "torch.compile needs a C++ compiler"

    def training_forward(self) -> Callable:
        operation = self.native.training_forward()
        return torch.compile(lambda: operation()[0], fullgraph=True, dynamic=False)
