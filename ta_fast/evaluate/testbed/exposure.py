"""What a method shows a model on one turn, and its tokens on the exact text sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ta_fast.tokens import count_tokens
from ta_fast.types import Tool
from ta_fast.wire import compact_json, mcp_definition, wire_name


@dataclass(frozen=True, slots=True)
class Exposure:
    """What one turn shows.

    Attributes:
        ids: Tools whose full definition is shown.
        schema_tokens: cl100k_base tokens of those definitions as they are sent.
        pool_tokens: Of the text that stays the same from turn to turn.
        held_tokens: Of what earlier turns sent about tools that is still in the context.
    """

    ids: tuple[str, ...]
    schema_tokens: int
    pool_tokens: int = 0
    held_tokens: int = 0

    @property
    def in_context(self) -> int:
        """Every token about tools that is in the context on this turn."""
        return self.schema_tokens + self.pool_tokens + self.held_tokens


class ArrayTokens:
    """Counts the tokens of tools arrays, exactly, without tokenising each array whole.

    cl100k_base splits text into pieces before it merges; between a letter or digit and any
    other character there is always an end of a piece. So an array's count is the sum over
    definitions, each up to its last letter or digit, and over the punctuation between them.

    Args:
        tools: The tools that arrays may hold.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.texts = {tool.id: definition_text(tool) for tool in tools}
        self._parts = {tool: _parts(text) for tool, text in self.texts.items()}
        self._count = lru_cache(maxsize=None)(count_tokens)

    def text(self, ids: Sequence[str]) -> str:
        """The array as it is sent: compact JSON of the definitions."""
        return f"[{','.join(self.texts[tool] for tool in ids)}]" if ids else ""

    def count(self, ids: Sequence[str]) -> int:
        """Tokens of ``text(ids)``."""
        total, before = 0, "["
        for tool in ids:
            head, body, tail = self._parts[tool]
            total += self._count(before + head) + self._count(body)
            before = f"{tail},"
        return total + self._count(f"{before[:-1]}]") if ids else 0


def definition_text(tool: Tool) -> str:
    """A tool's definition as it is sent: compact MCP JSON under its wire name."""
    return compact_json(mcp_definition(wire_name(tool.id), tool.description, tool.input_schema))


def _parts(text: str) -> tuple[str, str, str]:
    """(punctuation before the first word, the rest, punctuation after the last word)."""
    words = [place for place, character in enumerate(text) if character.isalnum()]
    first, last = words[0], words[-1] + 1
    return text[:first], text[first:last], text[last:]
