import json
from pathlib import Path
from typing import Any

import pytest

from ta_fast.config import Config, read_config, write_config
from ta_fast.errors import InvalidConfig


def test_round_trip(tmp_path: Path) -> None:
    """What was written is read; defaults are not written."""
    path = tmp_path / "c.json"
    config = Config(catalog="x.db", threshold=0.3, always_include=("a__b",))
    write_config(path, config)
    assert read_config(path) == config
    assert set(json.loads(path.read_text())) == {"catalog", "threshold", "always_include"}
    assert [p.name for p in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"treshold": 0.3}, "unknown key 'treshold'; did you mean 'threshold'"),
        ({"zzz": 1}, "unknown key 'zzz'$"),
        ({"threshold": 1.5}, r"threshold is 1.5; expected a number in \[-1, 1\]"),
        ({"threshold": True}, "threshold is True"),
        ({"top_k": 0}, "top_k is 0; expected a whole number from 1"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"always_include": "a"}, "expected a list of tool ids"),
        ({"encoder": 7}, "encoder is 7; expected text"),
        ([], "holds a list; expected an object"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, values: Any, says: str) -> None:
    """Each message has the value found and what was expected."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InvalidConfig, match=says):
        read_config(path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", None])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    """Broken JSON, broken UTF-8, no file."""
    path = tmp_path / "c.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidConfig, match=r"cannot read .*c\.json"):
        read_config(path)
