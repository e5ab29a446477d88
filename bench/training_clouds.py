"""Readers of the command lines of two clouds: operations, and the titles of their examples."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, TypeAlias

from bench.training_rows import ReadSet, Rows, as_order, tool_row


def read_aws(packages: Path) -> ReadSet:
    """Operations of the services that have examples; a service is named where only it tells."""
    tools: Rows = {}
    titles: list[tuple[str, str, str]] = []
    for folder in sorted((packages / "awscli" / "examples").iterdir()):
        versions = sorted((packages / "botocore" / "data").glob(f"{folder.name}/*/service-2.json*"))
        if not folder.is_dir() or not versions:
            continue
        raw = versions[-1].read_bytes()
        model = json.loads(gzip.decompress(raw) if versions[-1].suffix == ".gz" else raw)
        about = model["metadata"]
        service = about.get("serviceAbbreviation") or about["serviceFullName"]
        for operation in model["operations"].values():
            command = _kebab(operation["name"])
            name = f"{folder.name}_{command}".replace("-", "_")
            members = (
                model["shapes"][operation.get("input", {}).get("shape")]["members"].items()
                if "input" in operation
                else ()
            )
            parameters = {
                member: _aws_parameter(model["shapes"], shape) for member, shape in members
            }
            text = _prose(operation.get("documentation", ""))
            tools[name] = tool_row(name, text, parameters, service)
            path = folder / f"{command}.rst"
            if text and path.is_file():
                found = re.findall(r"^\*\*(?:Example \d+: )?(.+?)\*\*\s*$", path.read_text(), re.M)
                titles += [(_aws_title(title), name, service) for title in found]
    count = Counter(title.lower() for title, _, _ in titles)
    several = Counter(name.partition("_")[2] for name in tools)
    asked = []
    for title, name, service in titles:
        alone = count[title.lower()] == 1 and several[name.partition("_")[2]] == 1
        known = service.replace("Amazon ", "").replace("AWS ", "").lower() in title.lower()
        asked.append((title if alone or known else f"{title} in {service}", [name]))
    return tools, asked


def _aws_title(title: str) -> str:
    return as_order(re.sub(r"^(Example \d+:?\s+)?(To\s+)?", "", title.replace("``", "`").strip()))


def _aws_parameter(shapes: dict[str, Any], member: dict[str, Any]) -> dict[str, Any]:
    kinds = {
        "structure": "object",
        "map": "object",
        "list": "array",
        "integer": "integer",
        "long": "integer",
        "boolean": "boolean",
        "float": "number",
        "double": "number",
    }
    text = _first_sentence(_prose(member.get("documentation", "")))
    return {"type": kinds.get(shapes[member["shape"]]["type"], "string"), "description": text}


def _kebab(name: str) -> str:
    """A name in camel case as the command line writes it."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1-\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", name).lower()


def read_azure(packages: Path) -> ReadSet:
    """Commands of the help files and of the generated modules."""
    tools: Rows = {}
    asked: list[tuple[str, list[str]]] = []
    modules = packages / "azure" / "cli" / "command_modules"
    for path in sorted(modules.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if path.name == "_help.py":
            found = _azure_help(source)
        elif "@register_command(" in source and "/aaz/latest/" in path.as_posix():
            found = _azure_module(source)
        else:
            continue
        for command, text, parameters, examples in found:
            name = f"az_{command}".replace(" ", "_").replace("-", "_")
            if text:
                tools[name] = tool_row(name, text, parameters, f"az {command.split()[0]}")
                for example in examples:
                    title = re.sub(r"\s*\(auto-?generated\)", "", example)
                    asked.append((as_order(title), [name]))
    return tools, asked


_AzureCommand: TypeAlias = tuple[str, str, dict[str, Any], list[str]]


def _azure_help(source: str) -> Iterator[_AzureCommand]:
    for command, body in re.findall(r'helps\[[\'"](.+?)[\'"]\]\s*=\s*f?"""(.*?)"""', source, re.S):
        if re.search(r"type:\s*group", body):
            continue
        head, _, tail = body.partition("\nexamples:")
        short = re.search(r"short-summary:\s*[>|]?-?\s*(.+)", head)
        flags = re.findall(r"--([a-z][\w-]+)", tail + head)
        said = dict(
            re.findall(r"- name: --([\w-]+).*\n\s+(?:type:.*\n\s+)?short-summary: (.+)", head)
        )
        parameters = {
            flag: {"type": "string", "description": said.get(flag, "").strip("'\"|> ")}
            for flag in dict.fromkeys(flags)
        }
        titles = re.findall(r"- name:\s*[>|]?-?\s*(.+)\n", tail)
        yield (
            command,
            short[1].strip("'\" ") if short else "",
            parameters,
            [re.sub(r"^(['\"])(.*)\1$", r"\2", title.strip()) for title in titles],
        )


def _azure_module(source: str) -> Iterator[_AzureCommand]:
    named = re.search(r'@register_command\(\s*"(.+?)"', source)
    said = re.search(r'\n    """(.*?)"""', source, re.S)
    if named and said:
        text, _, examples = said[1].partition(":example:")
        titles = [part.strip().partition("\n")[0] for part in examples.split(":example:")]
        arguments = re.findall(r"_args_schema\.(\w+) = AAZ(\w+)\((.*?)\n        \)", source, re.S)
        parameters = {}
        for name, kind, body in arguments:
            helped = re.search(r'help="(.+?)"', body)
            parameters[name] = {
                "type": {
                    "Int": "integer",
                    "Bool": "boolean",
                    "List": "array",
                    "Object": "object",
                    "Dict": "object",
                }.get(kind[:-3], "string"),
                "description": helped[1] if helped else "",
            }
        yield named[1], " ".join(text.split()), parameters, [title for title in titles if title]


def _prose(html: str) -> str:
    """The text of a scrap of HTML."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text)[0][:200]
