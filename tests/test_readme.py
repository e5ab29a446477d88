import re
from pathlib import Path

import pytest

from ta_fast.encoder import make_encoder
from ta_fast.errors import BackendUnavailable

README = Path(__file__).parents[1] / "README.md"


def test_example_prints_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's example runs as it stands; its comments are its output."""
    try:
        make_encoder()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own README
    expected = re.findall(r"print\(.*\)  # (.*)", code)
    assert expected
    assert capsys.readouterr().out.splitlines() == expected
