"""What a tool is for, read off its definition: a verb and an object.

Both come from the first sentence of the description and from the name. It is a reading for
generated intents, so it may be rough and may be none, but must not be nonsense too often.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ta_fast.lexicon import spaced
from ta_fast.types import Tool

_LONG, _SHORT = 16, 8  # most words of an object
_MARKUP = re.compile(r"<[^>]*>|[`*_#]+|https?://\S+")
_NOT_SAID = re.compile(r"[^\w\s]|_")
_SENTENCE = re.compile(r"(?<=\w\w)[.!?](?=\s|$)|\n\s*\n|[;:](?=\s)|\se\.g")
_PREAMBLE = re.compile(
    r"^(?:contains|it|you can"
    r"|(?:this|the|an?) (?:\w+ )?(?:function|tool|api|endpoint|method|operation|request|service)"
    r"|use (?:this|the)(?: \w+)? to|(?:this )?(?:endpoint|api|function|method)"
    r"|(?:an? |the )?(?:app|tool|plugin|assistant|platform|service|website) (?:for|that|to|which)"
    r"|(?:allows?|enables?|lets?|helps?) (?:\w+ ){1,3}?to(?= ))\s+"
    r"|^(?:is |can be |will |be )?(?:used |able |designed )?(?:to|for|will|can)\s+",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"^\w+(?:,? (?:and|or) |, (?:\w+, )*(?:and|or) )(?=\w+ )", re.IGNORECASE)
_ASIDE = re.compile(r"\s\([^()]*\)")
_DETAIL = re.compile(
    r",(?!\d)|\(|\s(?:such as|including|based|using|given|that|which|by|via|within|where|when|if|"
    r"with|along|through|according|as well|so|and returns?)\b",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\b(?:specified|specific|given|particular|certain|provided)\s(?:or\s)?")
_DANGLING = re.compile(
    r"(?:\s(?:an?|the|and|or|of|in|on|at|to|for|from|with|by|as|my|its|your|against|into|is|user|during))+$"
)
_FIRST = re.compile(r"^(?:for|on|about|with)\s+")
_OBJECT_NEXT = frozenset({"a", "an", "the", "all", "any", "your", "my", "one", "two", "multiple"})
_NO_START = frozenset({"you", "your", "it", "this", "we", "our", "if", "when", "there", "please"})
_PLURAL = re.compile(r"\w\w\w[^su]s$")
_BETWEEN = frozenset({"by", "to", "for", "of", "in", "on", "with", "from", "and", "or"})
_JUNK = frozenset({"api", "tool", "v1", "v2", "v3", "endpoint", "function"})


@dataclass(frozen=True, slots=True)
class Aim:
    """What a tool is for: a verb, its group in ``phrases.toml``, and an object.

    The group is "" where the verb is not listed; the verb is "" where the tool is only named.
    ``short`` is ``long`` without the details at its end.
    """

    verb: str
    group: str
    long: str
    short: str


@cache
def table() -> Mapping[str, Any]:
    """``phrases.toml``."""
    return tomllib.loads(files(__package__).joinpath("phrases.toml").read_text(encoding="utf-8"))


def read_aims(tool: Tool) -> list[Aim]:
    """What a tool says it is for: by its description, and by its name; none if neither does."""
    found = [_described(tool.description), _named(tool.name)]
    return [aim for aim in found if aim is not None]


def is_verb(word: str) -> bool:
    """Whether a word in small letters is one of the verbs that tools are described with."""
    return word in _verbs()


def is_plural(text: str) -> bool:
    """Whether the noun before the first preposition looks like a plural."""
    return bool(
        _PLURAL.search(re.split(r" (?:of|for|in|from|on|by|at|with|between|per) ", text)[0])
    )


def plain(text: str) -> str:
    """Lower-case words without punctuation."""
    return " ".join(_NOT_SAID.sub(" ", text).lower().split())


def _described(description: str) -> Aim | None:
    clean = _MARKUP.sub(" ", description).replace("\u2019", "'").strip()
    clean = _ASIDE.sub("", clean)
    text = " ".join(_SENTENCE.split(clean, maxsplit=1)[0].split())
    while (rest := _PREAMBLE.sub("", text, count=1)) != text:
        text = rest
    if _verb(text.partition(" ")[0].strip(",").lower())[0]:
        text = _SEVERAL.sub("", text)
    words = text.split()
    if len(words) < 2 or words[0].lower() in _NO_START:  # noqa: PLR2004
        return None
    verb, group = _verb(words[0].lower())
    if not verb and words[1].lower() in _OBJECT_NEXT:
        verb = re.sub(r"ies$", "y", words[0].lower()).removesuffix("s")  # one that is not listed
    return _aim(verb, group, " ".join(words[1:] if verb else words))


def _named(name: str) -> Aim | None:
    last = name.rpartition(".")[2]
    words = [word for word in plain(spaced(last if "_" in last else name)).split() if len(word) > 1]
    words = [word for word in words if word not in _JUNK and not word.isdigit()]
    for place, word in enumerate(words[:-1]):
        verb, group = _verb(word)
        rest = " ".join(words[place + 1 :])
        if verb and not word.endswith("ing") and words[place + 1] not in _BETWEEN:
            article = "a" if group == "create" else "the"
            return _aim(verb, group, rest if is_plural(rest) else f"{article} {rest}")
    return _aim("", "", " ".join(words)) if len(words) > 1 else None


def _aim(verb: str, group: str, rest: str) -> Aim | None:
    text = _FIRST.sub("", _PLACEHOLDER.sub("", rest))
    text = re.sub(r"\b(?:(?:the|an?) user's|their)\b", "my", text)
    text = re.sub(r"^(?:the|an?) user (?=in)", "", text)
    text = re.sub(r"\ban(?= [^aeiohAEIOH\W])", "a", text)
    long = re.sub(r"\ba(?= [aeioAEIO])", "an", text).split()[:_LONG]
    if not long:
        return None
    whole = _DANGLING.sub("", " ".join(long).rstrip(",(-:."))
    if not whole[:2].isupper():
        whole = whole[:1].lower() + whole[1:]
    cut = _DETAIL.search(whole, len(long[0]) + 1)
    short = " ".join((whole[: cut.start()] if cut else whole).split()[:_SHORT])
    short = _DANGLING.sub("", short)
    return Aim(verb, group, whole, short) if re.search(r"[^\W\d]{2}", short) else None


@cache
def _verb(word: str) -> tuple[str, str]:
    """The verb that a word is a form of and its group, or twice nothing."""
    known = _verbs()
    forms = [word, word.removesuffix("s"), word.removesuffix("es")]
    if word.endswith("ies"):
        forms.append(f"{word[:-3]}y")
    if word.endswith("ing"):
        forms += [word[:-3], f"{word[:-3]}e"]
    return next(((form, known[form]) for form in forms if form in known), ("", ""))


@cache
def _verbs() -> dict[str, str]:
    """Group by verb."""
    return {verb: name for name, row in table()["verbs"].items() for verb in row["known"].split()}
