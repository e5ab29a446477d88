"""The verb ``train``, and the bench that runs many recipes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from ta_fast.cli import main
from tests.train.tiny_sets import SUBJECTS, write_base, write_set

HAS_TORCH = find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The verb is there, and says what it needs."""
    assert main(["train", "--data", "x", "--out", str(tmp_path / "new")]) == 2
    assert "ta-fast[train]" in capsys.readouterr().err


@needs_torch
def test_the_verb_trains_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures as a table or as JSON; the folder is an encoder for every other verb."""
    base, one = write_base(tmp_path / "base"), write_set(tmp_path / "one")
    two = write_set(tmp_path / "two", SUBJECTS[::-1])
    flags = ["--base", str(base), "--set", "passes=1", "--set", "rate=0.001", "--seed", "3"]
    begin = ["train", "--data", str(one), str(two), *flags, "--leave-out", "each"]
    assert main([*begin, "--out", str(tmp_path / "shown")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("left out of training") == shown.count("trained on") == 2
    assert main([*begin, "--out", str(tmp_path / "new"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["recipe"]["seed"] == 3
    assert json.loads((tmp_path / "new" / "training.json").read_text()) == report
    after = report["trained_on"]["one"]["after"]["hybrid"]
    files = ["--tools", str(one / "tools.jsonl"), "--queries", str(one / "queries.jsonl")]
    assert main(["eval", *files, "--encoder", str(tmp_path / "new"), "--json"]) == 0
    served = json.loads(capsys.readouterr().out)
    assert served["mrr_10"] == pytest.approx(after["mrr_10"])
    assert served["recall_5"] == pytest.approx(after["recall_5"])


@needs_torch
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "pases=1"], "passes"),
        (["--leave-out", "three"], "each"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_flags_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    """A message says what was found, and nothing is written."""
    base, one = write_base(tmp_path / "base"), write_set(tmp_path / "one")
    begin = ["train", "--data", str(one), "--base", str(base), "--out", str(tmp_path / "new")]
    assert main([*begin, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())


@needs_torch
def test_the_bench_keeps_every_figure(tmp_path: Path) -> None:
    """Prepared sets run; what is done is not run again, and no time means no run."""
    from bench.gpu_train import Bench, prepare
    from ta_fast.train.recipe import Recipe

    folders = [write_set(tmp_path / name) for name in ("toollinkos", "real_x", "bfcl_x")]
    data, out = tmp_path / "data", tmp_path / "out.json"
    prepare(folders, data, str(write_base(tmp_path / "base")))
    recipe = Recipe(passes=1, tools=3)
    assert Bench(data, out, minutes=5).run("one", recipe)
    done = json.loads(out.read_text())
    assert (
        set(done["before"])
        == {"toollinkos", "real_x", "bfcl_x"}
        == set(done["recipes"]["one"]["after"])
    )
    late = Bench(data, out, minutes=0)
    assert late.run("one", recipe)
    assert not late.run("two", recipe)
    assert json.loads(out.read_text()) == done
