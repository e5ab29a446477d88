"""Sentences drawn from the templates of a voice assistant's language file.

A template has ``[optional]`` parts, ``(one|of|several)``, ``(in;any;order)``, ``<rules>`` and
``{lists:slots}``; what a list leaves open is filled with words of ours.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

_Node: TypeAlias = dict[str, Any]

_PAIRS = {"[": "]", "(": ")", "{": "}", "<": ">"}
_SKIPPED = frozenset({"HassNevermind", "HassRespond"})
_AREAS = {
    "en": "kitchen|living room|bedroom|garage|office",
    "de": "Küche|Wohnzimmer|Schlafzimmer|Garage|Büro",
    "fr": "cuisine|salon|chambre|garage|bureau",
    "es": "cocina|salón|dormitorio|garaje|despacho",
    "it": "cucina|soggiorno|camera|garage|studio",
    "nl": "keuken|woonkamer|slaapkamer|garage|kantoor",
    "pt-BR": "cozinha|sala|quarto|garagem|escritório",
}
_OPEN = {
    "item": "pizza|spaghetti|shampoo|avocado|ketchup|chocolate|tofu|yoghurt",
    "query": "Beethoven|Radiohead|Thriller|Nina Simone|Mozart|Daft Punk",
    "message": "pizza|OK|hello",
    "timer": "pizza|pasta|yoga",
    "zone": "Berlin|Paris|Madrid",
    "": "Sonos|Philips Hue|Roomba|IKEA|Tado|Shelly|Bosch",
}
_ATTEMPTS = 40
"""So many draws for each sentence that is asked for before a language counts as used up."""


class Grammar:
    """The templates of a language.

    Args:
        file: The language's file, as parsed.
        language: Its code, one of those that have words for rooms here.
    """

    def __init__(self, file: _Node, language: str) -> None:
        self._file = file
        self._areas = _AREAS[language]
        self._rng = random.Random(language)  # noqa: S311

    def sentences(self, number: int) -> Iterator[tuple[str, str]]:
        """At most so many different (sentence, intent), intents equally often."""
        intents = [name for name in self._file["intents"] if name not in _SKIPPED]
        seen: set[str] = set()
        for _ in range(number * _ATTEMPTS):
            if len(seen) == number:
                return
            intent = self._rng.choice(intents)
            block = self._rng.choice(self._file["intents"][intent]["data"])
            if not block["sentences"]:
                continue
            text = self._expand(self._rng.choice(block["sentences"]), block)
            text = re.sub(r"\s+([,?.!])", r"\1", " ".join(text.split()))
            if text.lower() not in seen:
                seen.add(text.lower())
                yield text, intent

    def _expand(self, template: str, block: _Node) -> str:
        """A sentence of a template, or of one of its alternatives."""
        template = self._rng.choice(_split(template, "|"))
        parts = _split(template, ";")
        if len(parts) > 1:
            self._rng.shuffle(parts)
            return " ".join(self._expand(part, block) for part in parts)
        text, place = "", 0
        while place < len(template):
            opening = template[place]
            if opening not in _PAIRS:
                text += opening
                place += 1
                continue
            end = _closing(template, place)
            text += self._part(opening, template[place + 1 : end], block)
            place = end + 1
        return text

    def _part(self, opening: str, inner: str, block: _Node) -> str:
        if opening == "[":
            return self._expand(inner, block) if self._rng.random() < 0.5 else ""
        if opening == "(":
            return self._expand(inner, block)
        found = "expansion_rules" if opening == "<" else "lists"
        known = self._file.get(found, {}) | block.get(found, {})
        name = inner.partition(":")[0]
        if opening == "<":
            return self._expand(known.get(name) or self._open(name), block)
        return self._slot(name, known.get(name, {}), block)

    def _slot(self, name: str, values: _Node, block: _Node) -> str:
        if "range" in values:
            low, high = values["range"]["from"], values["range"]["to"]
            return str(self._rng.randrange(low, high + 1, values["range"].get("step", 1)))
        if values.get("values"):
            value = self._rng.choice(values["values"])
            return self._expand(value["in"] if isinstance(value, dict) else value, block)
        return self._open(name)

    def _open(self, name: str) -> str:
        """Words for what only a home's owner could name."""
        if "area" in name or "floor" in name:
            return self._rng.choice(self._areas.split("|"))
        words = next(words for part, words in _OPEN.items() if part in name)
        return self._rng.choice(words.split("|"))


def _split(template: str, separator: str) -> list[str]:
    """The parts between separators that stand in no bracket."""
    parts, depth = [""], 0
    for letter in template:
        depth += (letter in _PAIRS) - (letter in _PAIRS.values())
        if letter == separator and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _closing(template: str, start: int) -> int:
    """Where the bracket that opens at ``start`` closes."""
    depth = 0
    for place in range(start, len(template)):
        depth += (template[place] in _PAIRS) - (template[place] in _PAIRS.values())
        if not depth:
            return place
    raise ValueError(f"a bracket of {template!r} is not closed")
