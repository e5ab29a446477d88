"""Triton 3.6's interpreter, mended for the tests that run kernels without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def mend_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend three faults for one test.

    The interpreter takes ``int`` of an array of one, which NumPy 2.4 refuses, multiplies the
    bits of bfloat16 matrices as if they were integers, and cuts numbers to bfloat16, where
    devices round them.
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

    cut: Callable[..., Any] = interpreter.InterpreterBuilder.create_fp_trunc

    def truncate(self: Any, src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar != tl.float32 or dst_type.scalar != tl.bfloat16:
            return cut(self, src, dst_type)
        bits = src.data.view(np.uint32)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16  # half to even
        return interpreter.TensorHandle(rounded.astype(np.uint16), dst_type.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fp_trunc", truncate)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
