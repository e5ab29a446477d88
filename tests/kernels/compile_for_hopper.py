"""Compile the kernels of Hopper GPUs where there is none, and print what they need, as JSON.

    python -m tests.kernels.compile_for_hopper

Triton carries NVIDIA's assembler. Not in the process of other tests, which set TRITON_INTERPRET.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon._runtime import GluonASTSource

from ta_fast_kernels import triton_hopper

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
CASES = [("fp16", 8, 2), ("fp16", 16, 2), ("bf16", 32, 4)]
"""Numbers, and tools of a group and a part: catalogs of every size."""
SCALARS = {"n_words", "n_used", "n_turns", "n_tiles", "n_pure"}


def compiled(function: Any, dtype: str, constants: dict[str, Any]) -> Any:
    """A kernel for compute capability 9.0."""
    copied = f"tensordesc<{dtype}[128, 64],{triton_hopper.SWIZZLED!r}>"
    known = {"queries": copied, "tools": copied, "tops": "*bf16"}
    names = function.arg_names
    types = {name: known.get(name, "i32" if name in SCALARS else "*i32") for name in names}
    types |= dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if types[n][0] == "*"}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = GluonASTSource(function, types, values, aligned)
    options = {"num_warps": 4, "maxnreg": triton_hopper.REGISTERS}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def local_memory(kernel: Any) -> int:
    """Bytes of a thread's stack, where registers would be spilt to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [TOOLS / "cuobjdump", "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(map(int, re.findall(r"(?:STACK|LOCAL):(\d+)", said)))


def main() -> None:
    """The kernels for 384 dimensions."""
    found = []
    for (dtype, group, part), listed in product(CASES, [True, False]):
        constants: dict[str, Any] = {"STEPS": 6, "GROUP": group, "PART": part}
        if listed:
            function, more = triton_hopper.pure_tiles_on_hopper, {"EVERY": group == 8}
        else:
            function, more = triton_hopper.shared_tiles_on_hopper, {"IDENTITY": group == 16}
        kernel = compiled(function, dtype, constants | more)
        found.append(
            {
                "name": f"{function.__name__} {dtype} {group}",
                "shared": kernel.metadata.shared,
                "stack": local_memory(kernel),
                "products": kernel.asm["ptx"].count("wgmma.mma_async"),
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
