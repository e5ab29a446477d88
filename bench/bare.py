"""Parts of ta_fast on a machine that has not all of what the package as a whole needs."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
STEMMER = find_spec("Stemmer") is not None


class AsWritten:
    """Instead of PyStemmer where it is not: words stay as they are, which costs the same."""

    def __init__(self, language: str) -> None:
        pass

    def stemWords(self, words: list[str]) -> list[str]:  # noqa: N802 - PyStemmer's name
        """The words."""
        return words


def bare_packages() -> None:
    """Let parts of ta_fast be imported where something is missing; else do nothing.

    A bare GPU machine has no MCP SDK, no stemmer and no tiktoken; benches use none of them.
    """
    if all(find_spec(name) for name in ("mcp", "jsonschema_rs", "tiktoken", "Stemmer")):
        return
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
    spec = ModuleSpec("ta_fast", None, is_package=True)
    spec.submodule_search_locations = [str(ROOT / "ta_fast")]
    sys.modules["ta_fast"] = module_from_spec(spec)
    if not STEMMER:
        sys.modules["Stemmer"] = ModuleType("Stemmer")
        sys.modules["Stemmer"].Stemmer = AsWritten  # type: ignore[attr-defined]
