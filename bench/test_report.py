"""The report says what was measured, and what was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.report import MISSING, main

SHAPE = {"turns": 64, "tools": 10_000, "dim": 384, "k": 10}
OURS = {"64x10000 G64 half us": 12.5, "64x10000 G10000 half us": 15, "64x10000 G1 all us": 12}
PEERS = [{"what": "faiss-fp32", **SHAPE, "us": 75.0}, {"what": "faiss-fp16", **SHAPE, "us": 50.0}]


def report(folder: Path, capsys: pytest.CaptureFixture[str], **documents: object) -> list[str]:
    """The lines printed for these documents."""
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    main(
        [str(folder), "--plot", str(folder / "plot.svg")] if "plot" in documents else [str(folder)]
    )
    return capsys.readouterr().out.splitlines()


def test_table_takes_the_best_and_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The faster FAISS counts; torch, cuBLAS and the ceilings were not measured."""
    lines = report(tmp_path, capsys, ours=OURS, peers={"rows": PEERS})
    cells = next(line for line in lines if line.startswith("| 64")).strip("| ").split(" | ")
    assert cells == ["64", "10,000", MISSING, "12.5", MISSING, MISSING, "50", MISSING, "4.0"]


def test_gates_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many classes as tools is the worst case; a failed variant was not measured."""
    lines = report(tmp_path, capsys, ours=OURS | {"64x10000 G64 few us": "FAILED: no memory"})
    after = lines.index("**The gate's cost, microseconds**")
    cells = lines[after + 4].strip("| ").split(" | ")
    assert cells == ["64", "10,000", "12", MISSING, "12.5", MISSING, "15"]


def test_floor_comes_from_the_measured_ceilings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes over bandwidth: 64 x 10,000 x 384 in fp16 is bound by memory."""
    ceilings = {"copy_tb_s": 4.0, "float16_tflop_s": 800.0}
    lines = report(tmp_path, capsys, ours=OURS, peers={"ceilings": ceilings})
    moved = 2 * 384 * 10_064 + 8 * 64 * 10
    assert any(f"| 10,000 | {moved / 4e6:.3g} | 12.5 |" in line for line in lines)


def test_encoder_beside_its_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shape that the peer was not timed at says so."""
    shapes = [
        {"tokens": 16, "texts": n, "ms": 0.5, "per_s": 2000, "share": 0.25} for n in (1, 2048)
    ]
    peers = {
        "peer": [shapes[1] | {"ms": 4.0}],
        "onnxruntime": {"shapes": [shapes[0] | {"ms": 2.0}]},
    }
    lines = report(tmp_path, capsys, encoder={"ours": shapes, **peers})
    assert f"| 16 | 1 | 0.5 | 2,000 | 25% | {MISSING} | 2 |" in lines
    assert f"| 16 | 2,048 | 0.5 | 2,000 | 25% | 4 | {MISSING} |" in lines


def test_empty_folder_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing measured gives four empty tables."""
    lines = report(tmp_path, capsys)
    assert sum(line.startswith("|---") for line in lines) == 4
    assert not any(line.startswith("| 6") for line in lines)


def test_plot_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One SVG, whose legend says what is missing."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    report(tmp_path, capsys, plot=OURS)
    drawn = (tmp_path / "plot.svg").read_text()
    assert f"torch: {MISSING}" in drawn
    assert f"ta_fast: {MISSING}" not in drawn


def test_readme_shows_what_the_results_say(tmp_path: Path) -> None:
    """The README's tables are those that the committed results give, and nothing else changes."""
    root = Path(__file__).parents[1]
    copy = tmp_path / "README.md"
    copy.write_text((root / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    main([str(root / "bench" / "results"), "--into", str(copy)])
    assert copy.read_text(encoding="utf-8") == (root / "README.md").read_text(encoding="utf-8")
