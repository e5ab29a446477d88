"""Readers of the packages that training sets are made from: tools, and what asks for them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from bench.training_rows import ReadSet, Rows, as_order, read_lines, tool_row
from bench.training_templates import Grammar
from ta_fast.evaluate.bfcl import read_bfcl

LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt-BR")
SENTENCES = 300
"""So many sentences of a language, three times as many of English."""
_TURN_FILES = (
    "gorilla_file_system",
    "math_api",
    "message_api",
    "posting_api",
    "ticket_api",
    "trading_bot",
    "travel_booking",
    "vehicle_control",
    "web_search",
)


def read_bfcl_turns(packages: Path) -> ReadSet:
    """Each user turn that has calls; a change of folder counts only where it is the only call."""
    data = packages / "bfcl_eval" / "data"
    tools: Rows = {}
    for name in _TURN_FILES:
        for row in read_lines(data / "multi_turn_func_doc" / f"{name}.json"):
            text = row["description"].rpartition("Tool description:")[2].strip()
            tools[row["name"]] = tool_row(
                row["name"], text, row["parameters"].get("properties"), name
            )
    asked = []
    for kind in ("base", "miss_param", "long_context"):
        right = {
            row["id"]: row["ground_truth"]
            for row in read_lines(data / "possible_answer" / f"BFCL_v4_multi_turn_{kind}.json")
        }
        for row in read_lines(data / f"BFCL_v4_multi_turn_{kind}.json"):
            for turn, calls in zip(row["question"], right[row["id"]], strict=False):
                called = {call.partition("(")[0] for call in calls}
                text = " ".join(m["content"] for m in turn if m["role"] == "user")
                asked.append((text, called - {"cd"} or called))
    return tools, asked


def read_bfcl_code(packages: Path) -> ReadSet:
    """The questions in Java and JavaScript, and those whose answers were executed."""
    data = packages / "bfcl_eval" / "data"
    found = read_bfcl(data, ("simple_java", "simple_javascript"))
    tools = {
        tool.id: {
            "id": tool.id,
            "name": tool.name,
            "description": tool.description,
            "inputSchema": tool.input_schema,
        }
        for tool in found.tools
    }
    asked = [(query.text, [min(group) for group in query.gold]) for query in found.queries]
    old = data / "unused_datasets"
    for kind in ("simple", "multiple", "parallel", "parallel_multiple"):
        right = {
            row["id"]: {call.partition("(")[0] for call in row["ground_truth"]}
            for row in read_lines(old / "possible_answer" / f"BFCL_v4_exec_{kind}.json")
        }
        for row in read_lines(old / "question" / f"BFCL_v4_exec_{kind}.json"):
            for function in row["function"]:
                name, parameters = function["name"], function["parameters"].get("properties")
                tools.setdefault(name, tool_row(name, function["description"], parameters))
            text = " ".join(m["content"] for m in row["question"][0] if m["role"] == "user")
            asked.append((text, right.get(row["id"], ())))
    return tools, asked


def read_agentdojo(packages: Path) -> ReadSet:
    """Tools from the functions' docstrings; a task's calls from its ground truth."""
    suites = packages / "agentdojo" / "default_suites" / "v1"
    tools: Rows = {}
    for path in sorted(suites.glob("tools/*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and ":param" in (ast.get_docstring(node) or ""):
                text, *fields = re.split(r"\s*:param ", ast.get_docstring(node) or "")
                said = dict(field.split(":", 1) for field in fields if ":" in field)
                parameters = {name: {"type": "string", "description": said[name]} for name in said}
                tools[node.name] = tool_row(node.name, text, parameters)
            elif isinstance(node, ast.FunctionDef) and node.args.args:
                text = ast.get_docstring(node) or ""
                if text:
                    tools[node.name] = tool_row(node.name, text, {})
    asked = []
    for path in sorted(suites.glob("*/user_tasks.py")):
        for task in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(task, ast.ClassDef):
                asked += _agentdojo_task(task)
    return tools, asked


def _agentdojo_task(task: ast.ClassDef) -> Iterator[tuple[str, set[str]]]:
    calls = {
        str(keyword.value.value)
        for node in ast.walk(task)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FunctionCall"
        for keyword in node.keywords
        if keyword.arg == "function" and isinstance(keyword.value, ast.Constant)
    }
    said: dict[str, str] = {}
    for node in task.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        text = _text(getattr(node, "value", None), said)
        if isinstance(target, ast.Name) and text is not None:
            said[target.id] = text
    if "PROMPT" in said and calls:
        yield said["PROMPT"], calls


def _text(node: ast.expr | None, said: dict[str, str]) -> str | None:
    """A string's text, made of what the class said before where it refers to that."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return said.get(node.id)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, said)
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [_text(part, said) for part in node.values]
    return None if None in parts else "".join(part for part in parts if part)


def read_m365(packages: Path) -> ReadSet:
    """Commands and the sentence over each example of their pages."""
    package = packages / "@pnp" / "cli-microsoft365"
    tools: Rows = {}
    asked = []
    for command in json.loads((package / "allCommandsFull.json").read_bytes()):
        name = f"m365_{command['name']}".replace(" ", "_").replace("-", "_")
        page = package / "docs" / "docs" / "cmd" / command.get("help", "")
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        said = dict(re.findall(r"^`(?:-\w, )?--(\w+).*`\n: (.+)", text, re.M))
        parameters = {
            option["long"]: {"type": "string", "description": said.get(option["long"], "")}
            for option in command["options"]
            if option.get("long") and option["long"] not in ("query", "output", "verbose", "debug")
        }
        tools[name] = tool_row(name, command["description"], parameters, "m365")
        examples = text.partition("\n## Examples")[2].partition("\n## ")[0]
        titles = re.findall(r"\n([^\n`#<>]+)\n+```sh", examples)
        asked += [(as_order(title), [name]) for title in titles]
    return tools, asked


def read_github(packages: Path) -> ReadSet:
    """Operations; the summary asks, the description tells."""
    path = packages / "@octokit" / "openapi" / "generated" / "api.github.com.json"
    tools: Rows = {}
    asked = []
    for operations in json.loads(path.read_bytes())["paths"].values():
        for operation in operations.values():
            name = re.sub(r"\W", "_", operation["operationId"])
            text = _linkless(operation.get("description") or "")
            if not text or "legacy" in operation["summary"].lower():
                continue
            parameters = {}
            for given in operation.get("parameters", ()):
                key = given.get("name") or given["$ref"].rpartition("/")[2]
                parameters[key] = {"type": "string", "description": given.get("description", "")}
            tools[name] = tool_row(name, text, parameters, "github")
            asked.append((operation["summary"], [name]))
    return tools, asked


def read_home(packages: Path) -> ReadSet:
    """Intents, and sentences drawn from each language's templates."""
    folder = packages / "home_assistant_intents"
    tools: Rows = {}
    for name, intent in json.loads((folder / "intents.json").read_bytes()).items():
        slots = {
            slot: {"type": "string", "description": about.get("description", "")}
            for slot, about in intent.get("slots", {}).items()
        }
        tools[name] = tool_row(name, intent.get("description", ""), slots, intent.get("domain", ""))
    asked: list[tuple[str, list[str]]] = []
    for language in LANGUAGES:
        grammar = Grammar(json.loads((folder / "data" / f"{language}.json").read_bytes()), language)
        number = SENTENCES * (3 if language == "en" else 1)
        asked += [(text, [intent]) for text, intent in grammar.sentences(number)]
    return tools, asked


def _linkless(markdown: str) -> str:
    """Without links' addresses, and without the notes in block quotes."""
    lines = [line for line in markdown.splitlines() if not line.startswith(">")]
    return " ".join(re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", " ".join(lines)).split())
