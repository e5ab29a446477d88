"""Labelled sets for training, made from published packages that were installed for it.

Documentation pairs a task in plain words with the command that does it, and benchmarks pair a
user's turn with its calls. Nothing of the packages is part of this repository. To build them:

    pip install --no-deps --target PYPI 'bfcl-eval>=2026.3' 'agentdojo>=0.1.35' 'awscli>=1.46' \
        'botocore>=1.44' 'azure-cli>=2.91' 'home-assistant-intents>=2026.10'
    npm install --ignore-scripts --prefix NPM @pnp/cli-microsoft365@11 @octokit/openapi@23
    python -m bench.training_sets --pypi PYPI --npm NPM/node_modules --out OUT

Sets whose names agree up to the first underscore are left out of training together.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

from bench.training_clouds import read_aws, read_azure
from bench.training_readers import (
    read_agentdojo,
    read_bfcl_code,
    read_bfcl_turns,
    read_github,
    read_home,
    read_m365,
)
from bench.training_rows import Asked, ReadSet, Rows

Pair: TypeAlias = tuple[str, frozenset[str]]

SEED = 20261122
QUERIES = 4000
"""At most so many queries of a source."""
TOOLS = 3000
"""At most so many tools of a catalog; gold tools stay."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a set comes from and what it holds."""

    name: str
    package: str
    """Its name on PyPI, or on npm when it starts with ``@``."""
    licence: str
    about: str
    read: Callable[[Path], ReadSet]
    """Of the folder that the packages were installed in."""
    parts: int = 1
    """Sets to write, each of its share of the servers."""


ORIGINS = (
    Origin(
        "bfcl_turns",
        "bfcl-eval",
        "Apache-2.0",
        "User turns of the multi-turn conversations and the functions called in each.",
        read_bfcl_turns,
    ),
    Origin(
        "bfcl_code",
        "bfcl-eval",
        "Apache-2.0",
        "The Java, JavaScript and executable questions and their functions.",
        read_bfcl_code,
    ),
    Origin(
        "agentdojo_tasks",
        "agentdojo",
        "MIT",
        "User tasks of four suites and the calls that solve them. No injected text is read.",
        read_agentdojo,
    ),
    Origin(
        "aws_examples",
        "awscli",
        "Apache-2.0",
        "Titles of the command examples; operations with the models of botocore (Apache-2.0).",
        read_aws,
        parts=2,
    ),
    Origin(
        "azure_examples",
        "azure-cli",
        "MIT",
        "Titles of the examples in the commands' help, and the commands with their arguments.",
        read_azure,
        parts=2,
    ),
    Origin(
        "m365_examples",
        "@pnp/cli-microsoft365",
        "MIT",
        "Sentences over the examples in the manual, and the commands with their options.",
        read_m365,
    ),
    Origin(
        "github_summaries",
        "@octokit/openapi",
        "MIT",
        "Summaries of the operations of GitHub's REST API, and their descriptions.",
        read_github,
    ),
    Origin(
        "home_sentences",
        "home-assistant-intents",
        "Apache-2.0",
        "Sentences of a voice assistant in seven languages, expanded from templates.",
        read_home,
    ),
)


def write_sets(
    origin: Origin, packages: Path, out: Path, evaluated: frozenset[str]
) -> Iterator[str]:
    """Write an origin's folders; yields what each holds, in a line.

    Args:
        origin: What to read.
        packages: The folder that its package was installed in.
        out: The sets' folders go into it.
        evaluated: Texts, as `plain` gives them, of queries that training must not see.

    Raises:
        FileNotFoundError: the package is not there.
    """
    version = _version(packages, origin.package)
    tools, asked = origin.read(packages)
    clear, why = usable(tools, asked, evaluated)
    for part in range(origin.parts):
        name = origin.name + (f"_{part + 1}" if origin.parts > 1 else "")
        here = {tool: row for tool, row in tools.items() if _part(row, origin.parts) == part}
        counts = write_set(out / name, here, [pair for pair in clear if pair[1] <= here.keys()])
        (out / name / "SOURCE.md").write_text(
            f"# {name}\n\nSource: {origin.package} {version}. Licence: {origin.licence}.\n"
            f"{origin.about}\n\n{counts}; seed {SEED}\nOf {origin.name}: {why}\n",
            encoding="utf-8",
        )
        yield f"{name}: {counts} ({why})"


def usable(tools: Rows, asked: Asked, evaluated: frozenset[str]) -> tuple[list[Pair], str]:
    """The (text, gold tools) that teach something, each text once, and how many did not.

    Left out are texts of evaluation queries, texts with several answers, texts of fewer than
    three words, and those that say no more than a gold tool's name or first sentence.
    """
    right: dict[str, Pair] = {}
    left_out = Counter[str]()
    unclear: set[str] = set()
    said = {tool: (_gist(tool), _gist(_opening(row["description"]))) for tool, row in tools.items()}
    for text, gold in asked:
        key, needed = plain(text), frozenset(gold)
        if key in evaluated:
            left_out["of evaluation sets"] += 1
        elif not needed or not needed <= tools.keys() or len(key.split()) < 3:
            left_out["too short or without a tool"] += 1
        elif any(_gist(text) in said[tool] for tool in needed):
            left_out["the tool's own words"] += 1
        elif key in right:
            left_out["repeated"] += 1
            if right[key][1] != needed:
                unclear.add(key)
        else:
            right[key] = " ".join(text.split()), needed
    left_out["with several answers"] = len(unclear)
    why = ", ".join(f"{number} {reason}" for reason, number in sorted(left_out.items()))
    return [pair for key, pair in right.items() if key not in unclear], f"left out: {why}"


def write_set(folder: Path, tools: Rows, clear: list[Pair]) -> str:
    """Write a set's tools and queries, at most `TOOLS` and `QUERIES`; says how many they are."""
    rng = random.Random(SEED)  # noqa: S311
    if len(clear) > QUERIES:
        clear = rng.sample(clear, QUERIES)
    wanted = {tool for _, needed in clear for tool in needed}
    others = [tool for tool in tools if tool not in wanted]
    wanted.update(rng.sample(others, max(0, min(TOOLS - len(wanted), len(others)))))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tools.jsonl", [row for tool, row in tools.items() if tool in wanted])
    queries = [
        {"id": f"{folder.name}_{number}", "text": text, "gold": sorted(needed)}
        for number, (text, needed) in enumerate(clear)
    ]
    _write(folder / "queries.jsonl", queries)
    return f"tools: {len(wanted)}; queries: {len(queries)}"


def _part(row: dict[str, Any], parts: int) -> int:
    """Tools of one server are in one part."""
    return crc32(str(row.get("server", "")).encode()) % parts


def _opening(description: str) -> str:
    return re.split(r"(?<=[.!?])\s", description.strip())[0]


def _gist(text: str) -> frozenset[str]:
    """The words that matter, plural and third person taken off."""
    small = {"a", "an", "the", "of", "for", "in", "to", "specified", "given", "your", "this"}
    words = plain(text.replace("_", " ")).split()
    return frozenset(word.rstrip("s") for word in words if word not in small)


def plain(text: str) -> str:
    """A text's words in lower case, to compare by."""
    return " ".join(re.findall(r"\w+", text.lower()))


def evaluated_texts(data: Path) -> frozenset[str]:
    """The texts of every ``queries.jsonl`` in the folders of a folder."""
    return frozenset(
        plain(json.loads(line)["text"])
        for path in sorted(data.glob("*/queries.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    )


def _version(packages: Path, package: str) -> str:
    """The installed version of a package."""
    if package.startswith("@"):
        return str(json.loads((packages / package / "package.json").read_bytes())["version"])
    for found in packages.glob(f"{package.replace('-', '_')}-*.dist-info"):
        return found.name.removesuffix(".dist-info").rpartition("-")[2]
    raise FileNotFoundError(f"{package} is not in {packages}; see bench/training_sets.py")


def _write(path: Path, rows: Iterable[object]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def add_data(parser: argparse.ArgumentParser) -> None:
    """The flag for the folder of evaluation sets, whose texts are left out."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=os.environ.get("TA_FAST_DATA", beside))


def main() -> None:
    """Write every set whose package is there; name those that are not."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pypi", type=Path, required=True, help="folder of Python packages")
    parser.add_argument("--npm", type=Path, required=True, help="a node_modules folder")
    parser.add_argument("--out", type=Path, required=True)
    add_data(parser)
    parser.add_argument("--only", nargs="*", help="names of the sets to write")
    given = parser.parse_args()
    evaluated = evaluated_texts(given.data)
    for origin in ORIGINS:
        if given.only and origin.name not in given.only:
            continue
        packages = given.npm if origin.package.startswith("@") else given.pypi
        try:
            for line in write_sets(origin, packages, given.out, evaluated):
                print(line, flush=True)
        except FileNotFoundError as error:
            print(f"{origin.name}: left out: {error}", flush=True)


if __name__ == "__main__":
    main()
