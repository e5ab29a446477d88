"""Triton 3.6's interpreter, mended for the tests that run kernels without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def mend_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend two faults for one test.

    The interpreter takes ``int`` of an array of one, which NumPy 2.4 refuses, and multiplies
    the bits of bfloat16 matrices as if they were integers.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch: Callable[..., None] = interpreter._patch_lang_tensor
    dot: Callable[..., Any] = interpreter.InterpreterBuilder.create_dot

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << np.uint32(16)
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
