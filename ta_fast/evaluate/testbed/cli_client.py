"""B4: tools as commands of a shell, whose help a client reads when it needs it.

A model of a client, not a client: it reads what it must to write a correct call to the right
tool, once in a session, and makes no mistake. So its tokens are a lower bound, and whether a
language model would find the right command is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ta_fast.evaluate.testbed.exposure import Exposure
from ta_fast.evaluate.testbed.tasks import Task
from ta_fast.tokens import count_tokens
from ta_fast.types import Tool

INSTRUCTION = (
    "Tools are shell commands. `tools` lists the servers, `tools SERVER` lists the commands of a "
    "server, `tools SERVER COMMAND --help` explains one, and without --help it runs.\n"
)


class CommandHelp:
    """The texts that the command line prints, and their cl100k_base tokens."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        by_server: dict[str, list[Tool]] = {}
        for tool in tools:
            by_server.setdefault(tool.server, []).append(tool)
        self.servers = "".join(
            f"{server}  {len(own)} commands\n" for server, own in by_server.items()
        )
        self.commands = {
            server: "".join(f"{tool.name}  {_first_sentence(tool)}\n" for tool in own)
            for server, own in by_server.items()
        }
        self.help = {tool.id: help_text(tool) for tool in tools}
        self.server_of = {tool.id: tool.server for tool in tools}

    def read_for(self, tool: str) -> list[str]:
        """What a client reads, in order, before it can call a tool."""
        return [self.servers, self.commands[self.server_of[tool]], self.help[tool]]


def cli_discovery(texts: CommandHelp, tasks: Sequence[Task]) -> list[Exposure]:
    """B4: the instruction on every turn, and each help text on the turn that first needs it.

    What was read stays in the context, as the output of commands does.
    """
    instruction = count_tokens(INSTRUCTION)
    tokens: dict[str, int] = {}
    exposures = []
    for task in tasks:
        read: dict[str, None] = {}
        held = 0
        for turn in task.turns:
            new = [text for tool in turn.gold for text in texts.read_for(tool) if text not in read]
            new = list(dict.fromkeys(new))
            read.update(dict.fromkeys(new))
            for text in new:
                if text not in tokens:
                    tokens[text] = count_tokens(text)
            spent = sum(tokens[text] for text in new)
            exposures.append(Exposure(turn.gold, spent, instruction, held))
            held += spent
    return exposures


def help_text(tool: Tool) -> str:
    """A command's help: what it does and one line for each option."""
    schema: Mapping[str, Any] = tool.input_schema
    required = schema.get("required", ())
    lines = [f"usage: tools {tool.server} {tool.name} [options]", tool.description]
    for name, option in schema.get("properties", {}).items():
        kind = "|".join(map(str, option["enum"])) if "enum" in option else option.get("type", "")
        must = " (required)" if name in required else ""
        lines.append(f"  --{name} {kind}{must}  {option.get('description', '')}")
    return "\n".join(lines) + "\n"


def _first_sentence(tool: Tool) -> str:
    return tool.description.partition(". ")[0].rstrip(".")
