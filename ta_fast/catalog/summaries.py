"""Summaries: what of a tool is always in the prompt, and what its embedding is made from.

A summary is one line, ``name: sentences``, of at most 60 cl100k tokens. Rules, in
the order in which they apply (docs/architecture.md has the figures behind them):

1. Markdown marks, code blocks, link targets, addresses and lead-ins to a list are
   dropped, and so is everything from a heading like ``Args:`` or ``Example:`` on.
2. The first sentence says what the tool does; sentences that say when to use it come
   next, because they read like the intents that should find it; then the others; last
   those that say when not to, because an embedding hardly sees the "not".
3. Every whole sentence that still fits is taken; they are written in their original
   order. A sentence is cut, between words, only when none fits whole.
4. Argument names are added only to a description of three words or fewer.

Nothing depends on other tools, on a model or on a word list that may be updated, so
the summary of an unchanged tool never changes.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from ta_fast.errors import InvalidCatalog
from ta_fast.tokens import count_tokens, truncate_tokens

if TYPE_CHECKING:
    from ta_fast.types import Tool

MAX_SUMMARY_TOKENS = 60
"""Longest summary in cl100k_base tokens, its name included; the paper's limit."""

_MAX_READ = 8_000  # characters of a description; a summary never needs those after them
_MAX_CHARACTERS = 128 * MAX_SUMMARY_TOKENS  # of the longest cl100k tokens; a longer text never fits
_MAX_NAME_TOKENS = MAX_SUMMARY_TOKENS // 2
_SHORT_DESCRIPTION = 3  # words; says no more than a verb and its object

_CODE_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]\n]{0,200})\]\([^)\n]{0,2000}\)")
_ADDRESS = re.compile(r"https?://\S+")
_SECTION = re.compile(
    r"^[ \t*#_-]*(?:arg(?:ument)?s|param(?:eter)?s|inputs?|outputs?|returns?|raises|responses?"
    r"|(?:prompt |usage )?examples?|usage|notes?|warnings?|requirements|see also)"
    r"\b[^\n.:]{0,30}:",
    re.IGNORECASE | re.MULTILINE,
)
_LIST_MARK = r"[ \t]*(?:[-*+•>]|#+|\d+[.)])[ \t]+"
_MARKS = re.compile(rf"\*\*|__|`+|^{_LIST_MARK}", re.MULTILINE)
_BLOCK_END = re.compile(rf"\n[ \t]*\n\s*|\n(?={_LIST_MARK})")
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][)\"']))(?<!e\.g\.)(?<!i\.e\.)\s+(?=[^a-z])"
    r"|(?<=[\u3002\uff01\uff1f])"  # the full stop, "!" and "?" of Chinese and Japanese
)
_WHEN_TO_USE = re.compile(
    r"\b(?:use (?:this|it|when|for|if|to)|used (?:to|for|when)|useful|helpful"
    r"|(?:great|best|ideal|perfect|suitable|good|handy) (?:for|when|to)"
    r"|when (?:you|the user|users?)|if you (?:need|want))\b",
    re.IGNORECASE,
)
_WHEN_NOT_TO_USE = re.compile(r"(?:not|do not|don't|never|avoid)\b", re.IGNORECASE)


def summarize(tool: Tool) -> str:
    """The summary of one tool: one line of at most 60 cl100k tokens that starts with its name.

    An operator's own ``tool.summary`` is taken as it is, with the name before it where
    it does not start with the name itself.

    Raises:
        InvalidCatalog: the operator's summary is empty or too long.
    """
    name = truncate_tokens(_one_line(tool.name), _MAX_NAME_TOKENS)
    if tool.summary is not None:
        return _operators(tool, name)
    sentences = _sentences(tool.description)
    text = f"{name}: {_choose(name, sentences)}" if sentences else name
    if sum(len(sentence.split()) for sentence in sentences) <= _SHORT_DESCRIPTION:
        text = _with_arguments(text, tool)
    return text


def _operators(tool: Tool, name: str) -> str:
    text = _one_line(tool.summary or "")
    if not text:
        raise InvalidCatalog(f"tool {tool.id!r}: its summary is empty; expected one line of text")
    summary = text if text.startswith(name) else f"{name}: {text}"
    if (count := count_tokens(summary)) > MAX_SUMMARY_TOKENS:
        message = (
            f"tool {tool.id!r}: its summary has {count} cl100k tokens with the name; "
            f"expected at most {MAX_SUMMARY_TOKENS}"
        )
        raise InvalidCatalog(message)
    return summary


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _sentences(description: str) -> list[str]:
    """The description's sentences, without markup and without sections of reference."""
    text = _CODE_BLOCK.sub("\n\n", description[:_MAX_READ])
    text = _ADDRESS.sub(" ", _LINK.sub(r"\1", text))
    section = _SECTION.search(text)
    if section and text[: section.start()].strip():
        text = text[: section.start()]
    blocks = (_one_line(_MARKS.sub("", block)) for block in _BLOCK_END.split(text))
    sentences = [part for part in chain.from_iterable(map(_SENTENCE_END.split, blocks)) if part]
    return [part for part in sentences if not part.endswith(":")] or sentences


def _choose(name: str, sentences: list[str]) -> str:
    """The sentences that fit after ``name``, most useful first, in their original order."""
    everything = " ".join(sentences)
    if _fits(f"{name}: {everything}"):
        return everything
    by_use = sorted(range(1, len(sentences)), key=lambda i: _usefulness(sentences[i]))
    chosen: list[int] = []
    for i in [0, *by_use]:
        more = sorted([*chosen, i])
        if _fits(f"{name}: {' '.join(sentences[j] for j in more)}"):
            chosen = more
    return " ".join(sentences[j] for j in chosen) or _cut(name, sentences[0])


def _usefulness(sentence: str) -> int:
    if _WHEN_NOT_TO_USE.match(sentence):
        return 2
    return 0 if _WHEN_TO_USE.search(sentence) else 1


def _fits(text: str) -> bool:
    return len(text) <= _MAX_CHARACTERS and count_tokens(text) <= MAX_SUMMARY_TOKENS


def _cut(name: str, sentence: str) -> str:
    """The longest run of whole words of ``sentence`` that fits after ``name``."""
    text = truncate_tokens(f"{name}: {sentence}", MAX_SUMMARY_TOKENS)[len(name) + 2 :]
    if len(text) < len(sentence) and not sentence[len(text)].isspace():
        words = text.rpartition(" ")[0]
        text = words if len(words) > len(text) // 2 else text  # scripts without spaces
    return text.rstrip(" ,;:")


def _with_arguments(text: str, tool: Tool) -> str:
    """``text (a, b, c)`` with as many of the tool's argument names as fit, in schema order."""
    properties = tool.input_schema.get("properties")
    names = [_one_line(name) for name in properties] if isinstance(properties, dict) else []
    result = text
    for count in range(1, len(names) + 1):
        longer = f"{text} ({', '.join(names[:count])})"
        if not _fits(longer):
            break
        result = longer
    return result
