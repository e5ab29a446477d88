import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ta_fast import cli, commands, labelled
from ta_fast.testing import HashingEncoder

TOOLS = [
    {"id": "fs__read", "name": "read", "description": "Read a text file.", "server": "fs"},
    {"id": "fs__write", "name": "write", "description": "Write a text file.", "server": "fs"},
    {"id": "w__today", "name": "today", "description": "Weather of a city.", "server": "w"},
]
QUERIES = [
    {"id": "1", "text": "read the text file", "gold": ["fs__read"]},
    {"id": "2", "text": "weather of the city", "gold": ["w__today"]},
]
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb with --json in an empty folder, with a fake encoder; (status, result)."""
    monkeypatch.chdir(tmp_path)
    for module in (commands, labelled):
        monkeypatch.setattr(module, "make_encoder", lambda _: HashingEncoder(128))
    Path("tools.jsonl").write_text("\n".join(map(json.dumps, TOOLS)))
    Path("queries.jsonl").write_text("\n".join(map(json.dumps, QUERIES)))

    def run(*words: str) -> tuple[int, Any]:
        status = cli.main([*words, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_ingest_then_route(run: Run) -> None:
    """From a file to promoted tools with scores, tokens and times."""
    status, result = run("ingest", "tools.jsonl")
    assert (status, result["tools"], len(result["added"]), result["embedded"]) == (0, 3, 3, 3)
    status, again = run("ingest", "tools.jsonl")
    assert (again["unchanged"], again["embedded"], again["epoch"]) == (3, 0, 1)
    status, result = run("route", "read a text file", "--top-k", "1", "--threshold", "0.1")
    assert [tool["id"] for tool in result["tools"]] == ["fs__read"]
    assert result["tokens"]["schemas"] > 0
    assert set(result["milliseconds"]) == {"prepare", "encode", "score", "load"}


def test_overrides_and_facts(run: Run) -> None:
    """Preconditions gate, facts open, an unknown fact and an unused override are told."""
    rules = {"fs__write": {"precondition": {"all_of": ["scope:w"]}}, "fs__wrte": {"summary": "x"}}
    Path("o.json").write_text(json.dumps({"facts": ["scope:w"], "tools": rules}))
    _, result = run("ingest", "tools.jsonl", "--overrides", "o.json")
    assert result["unused_overrides"] == {"fs__wrte": "fs__write"}
    route = ("route", "write a text file", "--threshold", "0.0")
    _, closed = run(*route, "--explain", "fs__write", "--facts", "scope:typo")
    assert "fs__write" not in [tool["id"] for tool in closed["tools"]]
    assert closed["explain"][0]["gate"]["missing"] == ["scope:w"]
    assert closed["unused_facts"] == ["scope:typo"]
    status, error = run("ingest", "tools.jsonl")
    assert (status, error["error"]) == (2, "InvalidConfig")
    assert "o.json" in error["message"]
    Path("other.jsonl").write_text('{"id": "o__x", "name": "x", "description": "Other."}')
    _, result = run("ingest", "other.jsonl", "--overrides", "o.json")
    other = next(name for name in result["sources"] if name.endswith("other.jsonl"))
    status, result = run("ingest", "--remove", other)
    assert (status, result["removed"]) == (0, ["o__x"])
    assert run("ingest", "tools.jsonl")[0] == 2
    _, opened = run(*route, "--facts", "scope:w", "--form", "openai", "--delivery", "frozen")
    assert opened["tools"][0]["id"] == "fs__write"
    assert opened["prompt"]["messages"]
    _, dropped = run("ingest", "tools.jsonl", "--no-overrides")
    assert dropped["updated"] == ["fs__write"]


def test_remove_a_source(run: Run) -> None:
    """By its name; a typo suggests the nearest."""
    _, result = run("ingest", "tools.jsonl")
    (name,) = result["sources"]
    status, error = run("ingest", "--remove", name + "x")
    assert (status, error["error"]) == (2, "InvalidCatalog")
    assert f"did you mean {name!r}" in error["message"]
    _, result = run("ingest", "--remove", name)
    assert (result["tools"], len(result["removed"])) == (0, 3)


def test_failed_server_is_told_and_the_others_are_kept(run: Run) -> None:
    """Status 1, the reason by server name, and the file's tools are in."""
    server = {"mcpServers": {"dead": {"command": sys.executable, "args": ["-c", "exit(3)"]}}}
    Path("mcp.json").write_text(json.dumps(server))
    status, result = run("ingest", "tools.jsonl", "--mcp", "mcp.json", "--timeout", "20")
    assert (status, result["tools"]) == (1, 3)
    assert list(result["failed"]) == ["dead"]


def test_tax(run: Run) -> None:
    """Every full schema against pool and promoted schemas."""
    run("ingest", "tools.jsonl")
    _, result = run("tax")
    assert result["all_schemas"] == sum(result["per_server"].values()) > 0
    assert result["turns_are"] == "each tool's own description"
    Path("intents.txt").write_text("read a text file\n\nweather\n")
    _, result = run("tax", "--intents", "intents.txt")
    assert result["turns"] == 2
    assert result["first_turn"] == pytest.approx(result["pool"] + result["promoted_schemas"])


def test_eval(run: Run) -> None:
    """Perfect words make perfect metrics."""
    _, result = run("eval", "--tools", "tools.jsonl", "--queries", "queries.jsonl")
    assert (result["recall_5"], result["mrr_10"], result["count"]) == (1.0, 1.0, 2)


def test_calibrate_writes_the_threshold_and_keeps_the_rest(run: Run) -> None:
    """Only the threshold changes in the configuration; --dry-run writes nothing."""
    words = ("calibrate", "--tools", "tools.jsonl", "--queries", "queries.jsonl")
    _, result = run(*words, "--dry-run")
    assert result["written"] is None
    assert not Path("ta-fast.json").exists()
    Path("ta-fast.json").write_text('{"top_k": 2}')
    _, result = run(*words)
    stored = json.loads(Path("ta-fast.json").read_text())
    assert stored == {"top_k": 2, "threshold": result["best"]["threshold"]}
    assert len(result["sweep"]) == 21


def write_labelled() -> None:
    """Two dozen labelled queries and as many that no tool fits."""
    texts = [
        *((f"please read the text file {i}", ["fs__read"]) for i in range(9)),
        *((f"write that text file number {i}", ["fs__write"]) for i in range(9)),
        *((f"what is the weather of city {i}", ["w__today"]) for i in range(9)),
        *((f"quantum zebra {i} sings of {i * 7} pears", []) for i in range(24)),
    ]
    rows = [{"id": str(i), "text": text, "gold": gold} for i, (text, gold) in enumerate(texts)]
    Path("labelled.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_calibrate_learns_when_to_abstain(run: Run) -> None:
    """Probabilities go to the catalog, the wish to the configuration, and routing keeps both."""
    run("ingest", "tools.jsonl")
    write_labelled()
    words = ("calibrate", "--queries", "labelled.jsonl", "--recall", "0.9")
    _, dry = run(*words, "--dry-run")
    assert dry["probabilities"]["auroc"] > 0.9
    assert not Path("ta-fast.json").exists()
    _, result = run("route", "quantum zebra sings", "--threshold", "-1")
    assert (result["fit"], result["abstained"]) == (None, False)
    _, learnt = run(*words)
    assert learnt["probabilities"]["abstain_below"] > 0
    assert json.loads(Path("ta-fast.json").read_text())["recall"] == 0.9
    _, result = run("route", "quantum zebra sings of pears", "--threshold", "-1")
    assert (result["tools"], result["abstained"]) == ([], True)
    _, result = run("route", "please read the text file", "--threshold", "0.1")
    assert (result["tools"][0]["id"], result["abstained"]) == ("fs__read", False)
    assert result["tools"][0]["probability"] > 0.5
    _, wished = run("route", "read", "--precision", "0.5", "--threshold", "-1")
    assert wished["fit"] is not None


def test_stale_calibration_is_told_by_doctor(run: Run) -> None:
    """How many tools are new or changed since."""
    run("ingest", "tools.jsonl")
    write_labelled()
    run("calibrate", "--queries", "labelled.jsonl")
    assert run("doctor")[1]["calibration"] == ""
    Path("more.jsonl").write_text('{"id": "m__x", "name": "x", "description": "More tools."}')
    run("ingest", "more.jsonl")
    assert "of 4, 1 are new or changed since" in run("doctor")[1]["calibration"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("calibrate", "--queries", "queries.jsonl", "--recall", "0.9"), "expected at least 20"),
        (("calibrate", "--queries", "queries.jsonl", "--recall", "2"), "recall is 2"),
        (
            ("calibrate", "--tools", "tools.jsonl", "--queries", "queries.jsonl", "--recall", "1"),
            "leave out --tools",
        ),
        (("route", "read", "--recall", "0.9"), "no calibration; run ta-fast calibrate"),
    ],
)
def test_wishes_that_cannot_be_kept(run: Run, words: tuple[str, ...], says: str) -> None:
    """Too few labels, a share that is none, tools of a file, no calibration yet."""
    run("ingest", "tools.jsonl")
    status, result = run(*words)
    assert status == 2
    assert says in result["message"]


def test_doctor(run: Run) -> None:
    """A tool without a description is named."""
    Path("bad.jsonl").write_text('{"id": "x__qzx", "name": "qzx"}')
    run("ingest", "tools.jsonl", "bad.jsonl")
    _, result = run("doctor")
    assert "x__qzx" in {finding["tool_id"] for finding in result["findings"]}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("route", "x"), "InvalidConfig"),
        (("route", "x", "--catalog", "tools.jsonl"), "InvalidCatalog"),
        (("ingest", "absent.jsonl"), "InvalidCatalog"),
        (("ingest",), "InvalidConfig"),
        (("eval", "--tools", "queries.jsonl", "--queries", "tools.jsonl"), "InvalidCatalog"),
        (("tax", "--config", "absent.json"), "InvalidConfig"),
        (("tax", "--intents", "absent.txt"), "InvalidCatalog"),
    ],
)
def test_mistakes_end_with_status_2_and_one_clear_error(
    run: Run, words: tuple[str, ...], error: str
) -> None:
    """A missing catalog, a file of another kind, an absent file."""
    status, result = run(*words)
    assert (status, result["error"]) == (2, error)


def test_bad_turns_from_the_command_line(run: Run) -> None:
    """Empty intent, k and threshold out of range."""
    run("ingest", "tools.jsonl")
    for words in (("",), ("x", "--top-k", "0"), ("x", "--threshold", "2")):
        status, result = run("route", *words)
        assert (status, result["error"]) == (2, "InvalidTurn")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ingest", "tools.jsonl"), "tools in ta-fast.db, epoch 1"),
        (("route", "read a text file", "--explain", "w__today"), "gated out by the state"),
        (("tax",), "all 3 full schemas"),
        (("eval", "--tools", "tools.jsonl", "--queries", "queries.jsonl"), "recall_5   1.0000"),
        (("calibrate", "--tools", "tools.jsonl", "--queries", "queries.jsonl"), "<- best F1"),
        (("calibrate", "--queries", "labelled.jsonl"), "turns abstain below 0.000"),
        (("doctor",), "in 3 tools"),
    ],
)
def test_text_for_people(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    """Every verb prints its result as text too."""
    run("ingest", "tools.jsonl")
    write_labelled()
    assert cli.main(words) == 0
    assert says in capsys.readouterr().out
