"""A short fuzz of the OpenAPI document; longer by hand: ``--max-examples`` of ``st run``."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.service import process

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


@pytest.mark.timeout(110)
def test_whatever_the_document_allows_is_answered_as_it_says(tmp_path: Path) -> None:
    """Requests made of the document, and near it: no 5xx but those described, no other shape."""
    pytest.importorskip("schemathesis")
    with process() as served:
        found = subprocess.run(
            [
                Path(sys.executable).with_name("st"),
                "run",
                f"http://127.0.0.1:{served.port}/openapi.json",
                "--max-examples=10",
                "--seed=1",
                f"--checks={','.join(CHECKS)}",
            ],
            capture_output=True,
            text=True,
            timeout=100,
            cwd=tmp_path,
            check=False,
        )
        assert found.returncode == 0, found.stdout
        assert served.route("send an email").status_code == 200
