"""Sets of requests that were written for this project, with the tools they ask for.

    python -m bench.training_written --out SETS

The catalogs are in ``bench/written``, a file each: its first line says what it is; a tool is
``name(parameters): description``; the lines after it, from ``- `` on, are what users say who need
it. Behind ``=>`` stand other tools that a request needs too. Language models wrote them, without
sight of any other set.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.training_rows import ReadSet, Rows, tool_row
from bench.training_sets import SEED, add_data, evaluated_texts, plain, usable, write_set
from ta_fast.errors import InvalidCatalog

WRITTEN = Path(__file__).parent / "written"
ALIKE = 0.5
"""A request is left out if it shares so many of all words with an evaluation query."""
CATALOGS = 6
"""Of a set, so that there are tools to tell apart."""
_TOOL = re.compile(r"(?P<name>\S[^()]*?)\((?P<parameters>[^()]*)\): +(?P<text>.+)")


def read_catalog(path: Path) -> ReadSet:
    """The tools of a file, and what asks for them.

    Raises:
        InvalidCatalog: a line is neither a tool nor a request, or names a tool that is not there.
    """
    tools: Rows = {}
    asked: list[tuple[str, list[str]]] = []
    key = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], 2):
        where = f"{path.name}, line {number}"
        if line.startswith("- ") and key:
            text, _, others = line[2:].partition(" => ")
            needed = [f"{path.stem}/{name.strip()}" for name in others.split(",") if name.strip()]
            asked.append((text, [key, *needed]))
        elif found := _TOOL.fullmatch(line):
            key = f"{path.stem}/{found['name']}"
            if key in tools:
                raise InvalidCatalog(f"{where}: {found['name']} is there twice")
            names = [name.strip() for name in found["parameters"].split(",") if name.strip()]
            parameters = {name: {"type": "string"} for name in names}
            tools[key] = tool_row(found["name"], found["text"], parameters) | {"id": key}
        elif line.strip():
            raise InvalidCatalog(f"{where}: expected a tool or a request, found {line[:60]!r}")
    for text, needed in asked:
        if lacking := [key for key in needed if key not in tools]:
            raise InvalidCatalog(f"{path.name}: {text[:60]!r} needs {lacking[0]}, which it lacks")
    return tools, asked


class Evaluated:
    """Queries that training must not see, by their words."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._words = [frozenset(text.split()) for text in texts]
        self._places: dict[str, list[int]] = {}
        for place, words in enumerate(self._words):
            for word in words:
                self._places.setdefault(word, []).append(place)

    def has(self, text: str) -> bool:
        """Whether one of them is the text, or nearly."""
        words = frozenset(plain(text).split())
        rare = sorted(words, key=lambda word: len(self._places.get(word, ())))
        # What shares half of the words has one of any more than half: of the rare ones.
        some = {at for word in rare[: len(rare) // 2 + 1] for at in self._places.get(word, ())}
        return any(
            len(words & self._words[at]) >= ALIKE * len(words | self._words[at]) for at in some
        )


def write_sets(folder: Path, out: Path, evaluated: frozenset[str]) -> Iterator[str]:
    """Write ``out/written_1`` and so on, of catalogs drawn with a fixed seed; yields a line each.

    Args:
        folder: Of the catalogs.
        out: The sets' folders go into it.
        evaluated: Texts, as `plain` gives them, of queries that training must not see.
    """
    files, like = sorted(folder.glob("*.txt")), Evaluated(evaluated)
    random.Random(SEED).shuffle(files)  # noqa: S311
    sets = -(-len(files) // CATALOGS)
    for number in range(sets):
        tools: Rows = {}
        asked: list[tuple[str, list[str]]] = []
        for path in files[number::sets]:
            more, texts = read_catalog(path)
            tools |= more
            asked += [(text, list(needed)) for text, needed in texts]
        new = [one for one in asked if not like.has(one[0])]
        clear, why = usable(tools, new, evaluated)
        name, old = f"written_{number + 1}", len(asked) - len(new)
        yield f"{name}: {write_set(out / name, tools, clear)} ({why}, {old} like an evaluated one)"


def main() -> None:
    """Write the sets."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    add_data(parser)
    given = parser.parse_args()
    for line in write_sets(WRITTEN, given.out, evaluated_texts(given.data)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
