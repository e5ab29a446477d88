from __future__ import annotations

import json
from pathlib import Path

import pytest

from ta_fast.catalog import Catalog
from ta_fast.errors import BackendUnavailable, InvalidCatalog
from ta_fast.evaluate import bfcl
from ta_fast.evaluate.bfcl import bfcl_folder, read_bfcl
from ta_fast.types import Source


def function(name: str, description: str, *parameters: str) -> dict[str, object]:
    """A function as BFCL writes it."""
    properties = {p: {"type": "float", "description": p} for p in parameters}
    parameters_of = {"type": "dict", "properties": properties, "required": []}
    return {"name": name, "description": description, "parameters": parameters_of}


def question(number: int, text: str, *functions: dict[str, object]) -> dict[str, object]:
    """A question as BFCL writes it."""
    words = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"id": f"q{number}", "question": [words], "function": list(functions)}


def write(folder: Path, questions: list[dict[str, object]], answers: dict[str, list[str]]) -> Path:
    """A folder laid out like the package's, with one category."""
    (folder / "possible_answer").mkdir(parents=True)
    rows = [
        {"id": name, "ground_truth": [{f: {} for f in right}]} for name, right in answers.items()
    ]
    for path, lines in (("", questions), ("possible_answer", rows)):
        text = "\n".join(map(json.dumps, lines))
        (folder / path / "BFCL_v4_live_simple.json").write_text(text)
    return folder


def test_reads_tools_and_queries(tmp_path: Path) -> None:
    """The user's words, the right function, and BFCL's types in JSON Schema's names."""
    weather, uber = (
        function("weather", "Get weather.", "city"),
        function("uber.ride", "Ride.", "to"),
    )
    folder = write(tmp_path, [question(1, "Will it rain?", weather, uber)], {"q1": ["weather"]})
    found = read_bfcl(folder, ["live_simple"])
    assert [tool.id for tool in found.tools] == ["weather", "uber.ride"]
    assert found.tools[0].input_schema["type"] == "object"
    assert found.tools[0].input_schema["properties"]["city"]["type"] == "number"
    (query,) = found.queries
    assert (query.text, query.gold) == ("Will it rain?", (frozenset({"weather"}),))
    Catalog().replace([Source("bfcl", found.tools)])


def test_wordings_of_one_function_are_one_tool(tmp_path: Path) -> None:
    """Same name and parameters: one tool. Same name, other parameters: either is right."""
    one, same = function("weather", "Get weather.", "city"), function("weather", "W.", "city")
    other = function("weather", "Weather by day.", "day")
    questions = [question(1, "a", one), question(2, "b", same), question(3, "c", other)]
    folder = write(tmp_path, questions, {f"q{i}": ["weather"] for i in (1, 2, 3)})
    found = read_bfcl(folder, ["live_simple"])
    assert [tool.id for tool in found.tools] == ["weather", "weather#2"]
    assert {query.gold for query in found.queries} == {(frozenset({"weather", "weather#2"}),)}


def test_questions_without_a_right_function_are_left_out(tmp_path: Path) -> None:
    """No answer, or one that names a function nobody offers."""
    questions = [question(i, "x", function("f", "F.")) for i in (1, 2, 3)]
    folder = write(tmp_path, questions, {"q2": ["g"], "q3": ["f"]})
    assert [query.id for query in read_bfcl(folder, ["live_simple"]).queries] == ["q3"]


def test_type_any_says_nothing(tmp_path: Path) -> None:
    """A parameter of any type has no type; one that is called "type" stays."""
    odd = function("f", "F.")
    odd["parameters"] = {
        "type": "dict",
        "properties": {"type": {"type": "string"}, "x": {"type": "any"}, "y": {"type": "tuple"}},
    }
    folder = write(tmp_path, [question(1, "x", odd)], {"q1": ["f"]})
    properties = read_bfcl(folder, ["live_simple"]).tools[0].input_schema["properties"]
    assert properties == {"type": {"type": "string"}, "x": {}, "y": {"type": "array"}}


@pytest.mark.parametrize("line", ["no json", '{"id": "q1"}', '{"question": [[]]}'])
def test_broken_files_are_named(tmp_path: Path, line: str) -> None:
    """An absent file, a line that is no JSON, a row of another form."""
    with pytest.raises(InvalidCatalog, match=r"BFCL_v4_live_simple\.json"):
        read_bfcl(tmp_path / "nowhere", ["live_simple"])
    folder = write(tmp_path, [], {})
    (folder / "BFCL_v4_live_simple.json").write_text(line)
    with pytest.raises(InvalidCatalog, match=r"BFCL_v4_live_simple\.json:1"):
        read_bfcl(folder, ["live_simple"])


def test_an_absent_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed without its dependencies, which are many."""
    monkeypatch.setattr(bfcl, "find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match="pip install --no-deps bfcl-eval"):
        bfcl_folder()
