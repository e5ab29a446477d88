"""Sets for training are made from packages: their tools, their queries, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.training_clouds import read_aws, read_azure
from bench.training_readers import read_agentdojo, read_bfcl_turns, read_github, read_m365
from bench.training_rows import as_order, tool_row
from bench.training_sets import ORIGINS, Origin, evaluated_texts, plain, usable, write_sets
from bench.training_templates import Grammar
from ta_fast.catalog.sources import read_file
from ta_fast.evaluate import read_queries

TOOLS = {
    "move_file": tool_row("move_file", "Moves a file. Folders too.", {"to": {"type": "string"}}),
    "sort_lines": tool_row("sort_lines", "Sort the lines of a file.", {}),
}


def test_a_set_is_read_as_any_other(tmp_path: Path) -> None:
    """A written folder has tools, queries and a source that the readers of sets accept."""
    (tmp_path / "tiny_pack-1.2.dist-info").mkdir()
    asked = [("put the notes into the archive", ["move_file"]), ("alphabetical please, now", [])]
    origin = Origin("tiny_tasks", "tiny-pack", "MIT", "Tasks.", lambda _: (TOOLS, asked))
    assert len(list(write_sets(origin, tmp_path, tmp_path / "out", frozenset()))) == 1
    folder = tmp_path / "out" / "tiny_tasks"
    tools = read_file(folder / "tools.jsonl").tools
    queries = read_queries(folder / "queries.jsonl", {tool.id for tool in tools})
    assert [tool.id for tool in tools] == ["move_file", "sort_lines"]
    assert [query.text for query in queries] == ["put the notes into the archive"]
    assert "tiny-pack 1.2. Licence: MIT" in (folder / "SOURCE.md").read_text()


def test_servers_are_divided_among_the_parts(tmp_path: Path) -> None:
    """Every tool and query is in one part, and tools of one server are together."""
    (tmp_path / "tiny-1.dist-info").mkdir()
    tools = {f"t{n}": tool_row(f"t{n}", f"Tool {n}", {}, f"server {n % 5}") for n in range(20)}
    asked = [(f"please use number {n}", [f"t{n}"]) for n in range(20)]
    origin = Origin("tiny", "tiny", "MIT", "", lambda _: (tools, asked), parts=2)
    list(write_sets(origin, tmp_path, tmp_path, frozenset()))
    parts = [_rows(tmp_path / name / "tools.jsonl") for name in ("tiny_1", "tiny_2")]
    servers = [{row["server"] for row in part} for part in parts]
    assert sum(map(len, parts)) == 20
    assert not servers[0] & servers[1]
    assert sum(len(_rows(tmp_path / f"tiny_{n}" / "queries.jsonl")) for n in (1, 2)) == 20


def test_what_teaches_nothing_is_left_out() -> None:
    """Repeats, evaluation queries, doubtful texts, short ones and a tool's own words."""
    asked = [
        ("Put it in the archive", ["move_file"]),
        ("put it in  the archive!", ["move_file"]),
        ("seen in an evaluation", ["move_file"]),
        ("do what I like", ["move_file"]),
        ("do what I like", ["sort_lines"]),
        ("move file", ["move_file"]),
        ("Move the specified file", ["move_file"]),
        ("Sort lines of files.", ["sort_lines"]),
        ("no such tool here", ["absent"]),
    ]
    clear, why = usable(TOOLS, asked, frozenset({plain("Seen in an evaluation.")}))
    assert clear == [("Put it in the archive", frozenset({"move_file"}))]
    assert "1 of evaluation sets" in why
    assert "2 the tool's own words" in why


def test_evaluation_texts_are_found_in_every_folder(tmp_path: Path) -> None:
    """All queries of a folder of sets are known by their words."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        row = {"id": "1", "text": f"Say {name.upper()}!", "gold": []}
        (tmp_path / name / "queries.jsonl").write_text(json.dumps(row) + "\n")
    assert evaluated_texts(tmp_path) == {"say one", "say two"}


def test_an_absent_package_is_named(tmp_path: Path) -> None:
    """The error says which package to install."""
    for origin in ORIGINS:
        with pytest.raises(FileNotFoundError, match=origin.package.rpartition("/")[2]):
            list(write_sets(origin, tmp_path, tmp_path, frozenset()))


@pytest.mark.parametrize(
    ("title", "order"),
    [
        ("Gets the _new_ list.", "Get the new list"),
        ("Applies a policy", "Apply a policy"),
        ("Publishes it:", "Publish it"),
        ("access keys", "Access keys"),
        ("Process a_b_c now", "Process a_b_c now"),
    ],
)
def test_titles_become_orders(title: str, order: str) -> None:
    """The third person, marks of emphasis and the full stop go; names keep their letters."""
    assert as_order(title) == order


def test_turns_have_the_functions_called_in_them(tmp_path: Path) -> None:
    """A change of folder is right only alone; a turn without calls has no gold."""
    data = tmp_path / "bfcl_eval" / "data"
    name = {"description": "A file system. Tool description: Sorts.", "parameters": {}}
    for stem in [
        "gorilla_file_system",
        "math_api",
        "message_api",
        "posting_api",
        "ticket_api",
        "trading_bot",
        "travel_booking",
        "vehicle_control",
        "web_search",
    ]:
        _put(data / "multi_turn_func_doc" / f"{stem}.json", [{"name": f"{stem}_do", **name}])
    for kind in ("base", "miss_param", "long_context"):
        turns = [[{"role": "user", "content": f"{kind} turn {n}"}] for n in range(3)]
        calls = [["cd('a')", "math_api_do(1)"], ["cd('b')"], []]
        _put(data / f"BFCL_v4_multi_turn_{kind}.json", [{"id": "0", "question": turns}])
        answers = data / "possible_answer" / f"BFCL_v4_multi_turn_{kind}.json"
        _put(answers, [{"id": "0", "ground_truth": calls}])
    tools, asked = read_bfcl_turns(tmp_path)
    assert tools["math_api_do"]["description"] == "Sorts."
    assert list(asked)[:3] == [
        ("base turn 0", {"math_api_do"}),
        ("base turn 1", {"cd"}),
        ("base turn 2", set()),
    ]


def test_tasks_are_read_without_running_them(tmp_path: Path) -> None:
    """Docstrings give tools, the ground truth gives calls."""
    suites = tmp_path / "agentdojo" / "default_suites" / "v1"
    tools = 'def pay(to):\n    """Pays someone.\n\n    :param to: Who is paid.\n    """\n'
    task = (
        "class T:\n    WHO: str = 'Ann'\n    PROMPT = f'Pay {WHO}'\n    def ground_truth(self):\n"
        "        return [FunctionCall(function='pay', args={})]\n"
    )
    _put_text(suites / "tools" / "bank.py", tools)
    _put_text(suites / "bank" / "user_tasks.py", task)
    rows, asked = read_agentdojo(tmp_path)
    assert rows["pay"]["inputSchema"]["properties"]["to"]["description"].strip() == "Who is paid."
    assert list(asked) == [("Pay Ann", {"pay"})]


def test_operations_have_their_examples(tmp_path: Path) -> None:
    """A title that only the service makes clear names it."""
    for service in ("alpha", "beta"):
        model = {
            "metadata": {"serviceFullName": f"Amazon {service}"},
            "operations": {
                "ListTags": {
                    "name": "ListTags",
                    "input": {"shape": "In"},
                    "documentation": "<p>Returns <i>tags</i>.</p>",
                }
            },
            "shapes": {
                "In": {"type": "structure", "members": {"Max": {"shape": "N"}}},
                "N": {"type": "integer"},
            },
        }
        path = tmp_path / "botocore" / "data" / service / "2020" / "service-2.json"
        _put_text(path, json.dumps(model))
        _put_text(
            tmp_path / "awscli" / "examples" / service / "list-tags.rst",
            "**Example 1: To list ``all`` tags**\n\nText\n",
        )
    rows, asked = read_aws(tmp_path)
    assert rows["alpha_list_tags"]["description"] == "Returns tags ."
    assert rows["alpha_list_tags"]["inputSchema"]["properties"]["Max"]["type"] == "integer"
    assert next(iter(asked)) == ("List all tags in Amazon alpha", ["alpha_list_tags"])


def test_commands_of_both_kinds_are_read(tmp_path: Path) -> None:
    """Help files and generated modules give commands, arguments and examples; groups none."""
    module = tmp_path / "azure" / "cli" / "command_modules" / "vm"
    _put_text(
        module / "_help.py",
        'helps["vm"] = """\ntype: group\nshort-summary: VMs.\n"""\n'
        'helps["vm start-all"] = """\ntype: command\nshort-summary: Starts VMs.\nexamples:\n'
        '  - name: Wake every machine. (autogenerated)\n    text: az vm start-all --zone 1\n"""\n',
    )
    _put_text(
        module / "aaz" / "latest" / "_list.py",
        '@register_command(\n    "vm list",\n)\nclass List(AAZCommand):\n    """List VMs.\n\n'
        '    :example: What is running\n        az vm list\n    """\n'
        '        _args_schema.top = AAZIntArg(\n            help="How many.",\n        )\n',
    )
    rows, asked = read_azure(tmp_path)
    assert list(rows) == ["az_vm_start_all", "az_vm_list"]
    assert list(rows["az_vm_start_all"]["inputSchema"]["properties"]) == ["zone"]
    assert rows["az_vm_list"]["inputSchema"]["properties"]["top"]["type"] == "integer"
    assert list(asked) == [
        ("Wake every machine", ["az_vm_start_all"]),
        ("What is running", ["az_vm_list"]),
    ]


def test_pages_and_summaries_are_read(tmp_path: Path) -> None:
    """The sentence over an example asks for its command, a summary for its operation."""
    package = tmp_path / "@pnp" / "cli-microsoft365"
    command = {"name": "spo site-add", "description": "Adds a site", "help": "site.mdx"}
    command |= {"options": [{"long": "title"}, {"long": "debug"}]}
    _put_text(package / "allCommandsFull.json", json.dumps([command]))
    page = (
        "`-t, --title <title>`\n: Its title\n\n## Examples\n\nMakes a team site\n\n```sh\nx\n```\n"
    )
    _put_text(package / "docs" / "docs" / "cmd" / "site.mdx", page)
    rows, asked = read_m365(tmp_path)
    properties = rows["m365_spo_site_add"]["inputSchema"]["properties"]
    assert properties == {"title": {"type": "string", "description": "Its title"}}
    assert list(asked) == [("Make a team site", ["m365_spo_site_add"])]

    operation = {"operationId": "a/get", "summary": "Get it", "description": "> Note\n[X](y) it."}
    api = {"paths": {"/a": {"get": operation}}}
    generated = tmp_path / "@octokit" / "openapi" / "generated"
    _put_text(generated / "api.github.com.json", json.dumps(api))
    rows, asked = read_github(tmp_path)
    assert rows["a_get"]["description"] == "X it."
    assert list(asked) == [("Get it", ["a_get"])]


def test_templates_become_sentences() -> None:
    """Options, alternatives, orders, rules and lists are filled, each sentence once."""
    block = {"sentences": ["(turn|switch) on [the] {thing} <where>", "({thing};please)"]}
    file = {
        "intents": {"On": {"data": [block]}, "HassNevermind": {"data": [block]}},
        "expansion_rules": {"where": "in {area}"},
        "lists": {"thing": {"values": [{"in": "lamp[s]"}]}, "area": {"wildcard": True}},
    }
    found = list(Grammar(file, "en").sentences(30))
    texts = [text for text, _ in found]
    assert {intent for _, intent in found} == {"On"}
    assert len(set(texts)) == len(texts) == 30
    assert not any(set(text) & set("[](){}<>|;") for text in texts)
    assert any(text.startswith(("turn on the lamp", "switch on the lamp")) for text in texts)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _put(path: Path, rows: list[Any]) -> None:
    _put_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
