"""Intents for tools that nobody has asked for yet, made of their definitions and our phrases.

What a tool is for is read off its description's first sentence and off its name: a verb and an
object. Phrases, verbs, values and other languages' words are in ``phrases.toml``.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ta_fast.lexicon import spaced
from ta_fast.train.aims import Aim, is_plural, plain, read_aims, table
from ta_fast.types import JsonObject, Tool

FOREIGN = 0.25
"""Share of the intents that are in another language than English."""
_DRAWS = 8  # for each intent that is wanted; what comes twice is dropped
Clear: TypeAlias = Callable[[Aim, str], bool]
_Said: TypeAlias = list[tuple[str, str]]
_ARTICLE = re.compile(r"^(?:an?|the|all|any|some|your|my)\s+", re.IGNORECASE)
_PLACE = re.compile(r"\s(?:in|for|from|on|at) (?:an?|the) \w+(?: \w+)?$", re.IGNORECASE)
_ABOUT = re.compile(
    r"^(?:(?:the |an? )?(?:details|information|info|data|list) (?:of|about|on|for|regarding) )"
)


def intents(tool: Tool, rng: random.Random, count: int, clear: Clear | None = None) -> list[str]:
    """Different intents that a person might type who needs a tool.

    Args:
        tool: Its name, description, parameters and server are read.
        rng: Draws; the same state gives the same intents.
        count: How many at most; fewer where the definition says too little.
        clear: Told an aim and the words for its object, whether they leave no doubt which
            tool is meant; by default they never do.
    """
    aims = read_aims(tool)
    made: dict[str, None] = {}
    for _ in range(_DRAWS * count if aims else 0):
        aim, said = rng.choice(aims), _arguments(tool.input_schema, rng)
        whole = _object(aim, rng, placed=bool(said))
        if clear is not None and not clear(aim, whole):
            continue
        speak = _foreign if _chance(rng, FOREIGN) else _english
        text = " ".join(speak(tool, aim, whole, said, rng).split())
        if _says_more(text, tool):
            made[text] = None
        if len(made) == count:
            break
    return list(made)


def write_generated(tools: Sequence[Tool], folder: Path, *, each: int = 4, seed: int = 0) -> int:
    """Write a labelled set of generated intents: ``tools.jsonl`` and ``queries.jsonl``.

    An intent whose words fit another tool as well is not written; one for a tool of several
    of the same name has all of them as right. An existing file is replaced.

    Args:
        tools: The catalog.
        folder: Of the set; up to its first underscore the name is that of the tools' origin,
            so that both are left out of training together.
        each: Intents a tool, at most.
        seed: Of every choice.

    Returns:
        How many intents there are.
    """
    named = defaultdict(set)
    for tool in tools:
        named[plain(spaced(tool.name))].add(tool.id)
    right: dict[str, set[str]] = defaultdict(set)
    clear = _telling_apart(tools)
    for tool in tools:
        # Its own draws, so that a tool's intents do not depend on the tools before it.
        rng = random.Random(f"{seed} {tool.id}")  # noqa: S311
        for text in intents(tool, rng, each, clear):
            right[text] |= named[plain(spaced(tool.name))]
    queries = [
        {"id": f"generated-{i}", "text": text, "gold": gold[:1], "gold_any": [gold]}
        for i, (text, gold) in enumerate((text, sorted(ids)) for text, ids in right.items())
    ]
    write_set(folder, tools, queries)
    return len(queries)


def write_set(folder: Path, tools: Sequence[Tool], queries: Sequence[JsonObject]) -> None:
    """Write ``tools.jsonl`` and ``queries.jsonl``, as ``read_set`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tools.jsonl", (_row(tool) for tool in tools))
    _write(folder / "queries.jsonl", queries)


def _telling_apart(tools: Sequence[Tool]) -> Clear:
    """Whether an object's words are all those of one tool only among those of its verb's group."""
    having: dict[tuple[str, str], set[str]] = defaultdict(set)
    for tool in tools:
        name = plain(spaced(tool.name))
        words = _stems(f"{name} {tool.description} {tool.server}")
        for group in {aim.group for aim in read_aims(tool)}:
            for word in words:
                having[group, word].add(name)

    def clear(aim: Aim, whole: str) -> bool:
        names = [having[aim.group, word] for word in _stems(whole) if (aim.group, word) in having]
        return bool(names) and len(set.intersection(*names)) == 1

    return clear


def _stems(text: str) -> set[str]:
    """Its words without a plural's ending; "my" stands for a user whom a definition names."""
    return {word.removesuffix("s") for word in plain(spaced(text)).split()} - {
        "my",
        "a",
        "an",
        "the",
    }


def _english(tool: Tool, aim: Aim, whole: str, said: _Said, rng: random.Random) -> str:
    whole = " ".join(_other(word, rng) for word in whole.split())
    args = "".join(phrase for phrase, _ in said)
    if tool.server and _chance(rng, 0.3):
        args += rng.choice((" in {}", " on {}", " with {}")).format(plain(spaced(tool.server)))
    english, kind = table()["english"], rng.choices(("ask", "indirect", "terse"), (5, 4, 2))[0]
    verbs = table()["verbs"].get(aim.group, {"typed": (), "indirect": english["ask"]})
    choices = verbs["indirect"] if kind == "indirect" else english[kind]
    phrase = rng.choice(choices if aim.verb else english["noun"])
    verb = rng.choice([aim.verb, *verbs["typed"]])
    if not phrase.startswith("{verb}") and verb.endswith((" me", " are")):
        verb = aim.verb
    slots = {
        "verb": verb,
        "o": whole,
        "bare": _ARTICLE.sub("", whole),
        "args": args,
        "values": "".join(f" {value}" for _, value in said),
        "be": "are" if is_plural(whole) else "is",
        "when": rng.choice(english["when"]),
    }
    text = phrase.format(**slots)
    return text if kind == "terse" else _dressed(text, rng)


def _object(aim: Aim, rng: random.Random, *, placed: bool) -> str:
    """What the verb is done to; a place is left out where a value says it."""
    whole = aim.short if placed else rng.choice((aim.long, aim.short, aim.short))
    if placed or _chance(rng, 0.5):
        whole = _PLACE.sub("", whole)
    return _ABOUT.sub("", whole) if _chance(rng, 0.5) else whole


def _other(word: str, rng: random.Random) -> str:
    """Now and then another word for the same."""
    synonyms, one = table()["synonyms"], word.removesuffix("s")
    known = word if word in synonyms else one
    if known not in synonyms or not _chance(rng, 0.6):
        return word
    chosen = rng.choice(synonyms[known].split()).replace("+", " ")
    return chosen if word == known or chosen.endswith("s") or " " in chosen else f"{chosen}s"


def _dressed(text: str, rng: random.Random) -> str:
    """As people write: with an opening or a closing, with a capital and a full stop or without."""
    english = table()["english"]
    before = rng.choice(english["opening"]) if _chance(rng, 0.2) else ""
    after = rng.choice(english["closing"]) if _chance(rng, 0.15) else ""
    if not before and not after and _chance(rng, 0.4):
        return text
    ended = text if text.endswith("?") else f"{text}."
    if not before.endswith(","):
        ended = ended[0].upper() + ended[1:]
    return f"{before} {ended} {after.format(when=rng.choice(english['when']))}"


def _foreign(tool: Tool, aim: Aim, whole: str, said: _Said, rng: random.Random) -> str:
    """A phrase of another language; the object in it is translated as far as it is known."""
    languages = table()["languages"]
    place, language = rng.choice(list(enumerate(languages["order"])))
    words = _ARTICLE.sub("", whole).split()
    if _chance(rng, 0.8):
        words = [_translated(word, place) for word in words]
    group = aim.group or ("run" if aim.verb else "get")
    phrase = rng.choice(languages[language]["run" if group == "turn" else group])
    text = str(phrase.format(o=" ".join(words), verb=aim.verb or "start"))
    values = [value for _, value in said]
    if tool.server and _chance(rng, 0.3):
        values.append(plain(spaced(tool.server)))
    return f"{text.rstrip('.')} ({', '.join(values)})" if values else text


def _translated(word: str, place: int) -> str:
    """The noun of a language, singular or plural as the English one; else the word itself."""
    nouns, lower = table()["nouns"], word.lower()
    for form, number in ((lower, 0), (lower.removesuffix("s"), 1), (f"{lower[:-3]}y", 1)):
        if form in nouns:
            forms = nouns[form].split()[place].split("/")
            return str(forms[min(number, len(forms) - 1)])
    return word


def _arguments(schema: JsonObject, rng: random.Random) -> _Said:
    """Up to two (phrase, value) for parameters that people name; often none."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or _chance(rng, 0.45):
        return []
    needed = schema.get("required") or ()
    names = [name for name in properties if name in needed] or list(properties)
    said = [_argument(name, properties[name], rng) for name in names]
    found = list(dict.fromkeys(one for one in said if one is not None))
    return rng.sample(found, min(len(found), rng.choice((1, 1, 2))))


def _argument(name: str, schema: Any, rng: random.Random) -> tuple[str, str] | None:
    words = plain(spaced(name))
    choices = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(choices, Sequence) and choices and isinstance(choices[0], str):
        value = plain(str(rng.choice(choices)))
        return (f" with {words} {value}", value) if value.strip() else None
    for row in table()["parameters"]:
        if set(words.split()) & set(row["words"].split()):
            if not row["phrase"]:
                return None
            value = rng.choice(row["values"])
            shown = f"{words} {value}" if "{p}" in row["phrase"] else value
            return row["phrase"].format(v=value, p=words), shown
    return None


def _says_more(text: str, tool: Tool) -> bool:
    """Whether an intent is more than the tool's name, and not one word."""
    words = plain(text).split()
    long = len(words) > 1 or not text.isascii()
    return long and words != plain(spaced(tool.name)).split()


def _chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def _row(tool: Tool) -> dict[str, Any]:
    row = {"id": tool.id, "name": tool.name, "description": tool.description}
    return {**row, "inputSchema": dict(tool.input_schema), "server": tool.server}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
