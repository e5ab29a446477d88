import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ta_fast"
KERNELS = ROOT / "kernels" / "ta_fast_kernels"

# Imports go one way: a room may import its own level's rooms of the same line or lower.
LEVELS = [
    {"errors"},
    {"types", "remembered"},
    {"tokens", "wire", "gate", "vocabulary", "lexicon", "turns"},
    {"session", "schemas", "prompt", "encoder", "scorer", "events", "calibration"},
    {"catalog", "calls"},
    {"pipeline"},
    {"snapshot", "check"},
    {"routing"},
    {"engine", "sessions"},
    {"routers"},
    {"attention"},
    {"evaluate", "train", "gateway"},
    {"config", "commands", "labelled", "testing"},
    {"serve"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
HEAVY = {"torch", "triton", "faiss", "sentence_transformers", "transformers"}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(name: str) -> str | None:
    """The room of ta_fast that a dotted name is in."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ta_fast" and len(parts) > 1 and parts[1] in LEVEL else None


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    """Nothing downstream is imported; only encoder, scorer and train may know torch."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts != ("__init__",):
        assert parts[0] in LEVEL, f"give {parts[0]} a level in tests/test_layout.py"
        for name in imports(path):
            target = room(name)
            if target is not None and target != parts[0]:
                type_only = parts[0] == "types" and target == "session"
                assert type_only or LEVEL[target] <= LEVEL[parts[0]], f"{path} imports {name}"
    if parts[0] not in ("encoder", "scorer", "train"):
        assert not {name.split(".")[0] for name in imports(path)} & HEAVY


@pytest.mark.parametrize("path", sorted(KERNELS.rglob("*.py")), ids=lambda p: p.name)
def test_kernels_know_nothing_of_ta_fast(path: Path) -> None:
    """The kernels stand on their own."""
    assert not any(name.split(".")[0] == "ta_fast" for name in imports(path))


def test_kernels_is_a_source_root_and_no_package() -> None:
    """Other libraries probe for a package named kernels: there must be none."""
    assert not list((ROOT / "kernels").glob("*.py"))
    code = "import importlib.util, ta_fast_kernels; print(importlib.util.find_spec('kernels'))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert found.stdout.strip() == "None"
    assert importlib.util.find_spec("ta_fast_kernels") is not None


def test_public_names_import_no_heavy_module() -> None:
    """``import ta_fast`` pulls neither torch nor a model runtime."""
    code = "import ta_fast, sys; print(sorted(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    loaded = set(ast.literal_eval(found.stdout))
    assert not loaded & (HEAVY | {"onnxruntime", "onnx", "mcp"})


def test_files_stay_small() -> None:
    """A file is at most 300 lines, and the public surface at most 40."""
    for path in [*FILES, *KERNELS.rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
    assert len((PACKAGE / "__init__.py").read_text().splitlines()) <= 40


def test_every_test_says_what_it_is_about() -> None:
    """A test's docstring is the first thing that its reader needs."""
    for path in [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "bench").rglob("test_*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"
