import json
from hashlib import sha256
from pathlib import Path

import pytest

from ta_fast.errors import InvalidConfig
from ta_fast.serve import Keys, read_keys
from tests.serve.service import client

TURN = {"intent": "push a branch", "threshold": -1}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nobody", "Basic alice", "alice"])
def test_without_a_known_key_there_is_nothing(header: str | None) -> None:
    """401, and how to do better."""
    with client() as call:
        headers = {"authorization": header or ""}
        answer = call("POST", "/v1/route", {"turns": [TURN]}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/route", {"turns": [{**TURN, "facts": ["scope:repo:write"]}]}),
        ("POST", "/v1/sessions/s", {"grant": ["scope:repo:write"]}),
        ("POST", "/v1/sessions/s", {"revoke": ["freeze:repo"]}),
        ("POST", "/v1/sessions/s", {"reach": ["plan"]}),
        ("DELETE", "/v1/sessions/s", None),
        ("GET", "/v1/tools?fact=scope:repo:write", None),
        ("POST", "/v1/succeeded", {"handle": "h", "tool": "mail__send"}),
        ("POST", "/v1/catalog/reload", {}),
        ("GET", "/metrics", None),
    ],
)
def test_a_client_can_set_only_what_its_key_allows(
    method: str, path: str, body: dict | None
) -> None:
    """Every way to a fact or a right is refused to a key that has none, and nothing changes."""
    with client() as call:
        call("POST", "/v1/sessions/s", {"grant": ["scope:repo:x"]})
        before = call("GET", "/v1/sessions/s").json()
        assert call(method, path, body, bearer="eve").status_code == 403
        assert call("GET", "/v1/sessions/s").json() == before


def test_patterns_end_where_they_end() -> None:
    """A prefix allows what begins so and no more."""
    with client() as call:
        for fact, status in [
            ("scope:repo:x", 200),
            ("scope:repository", 403),
            ("milestone:p", 403),
        ]:
            assert call("POST", "/v1/sessions/s", {"grant": [fact]}).status_code == status


def test_a_catalog_that_a_key_may_not_use_does_not_exist() -> None:
    """The same answer for both."""
    with client() as call:
        mine = call("POST", "/v1/route", {"turns": [TURN], "catalog": "secret"}, "bob")
        none = call("POST", "/v1/route", {"turns": [TURN], "catalog": "secret"}, "alice")
        assert mine.status_code == none.status_code == 404
        assert mine.json() == none.json()


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    """Only hashes are in it."""
    path = tmp_path / "keys.json"
    digest = sha256(b"k").hexdigest()
    path.write_text(json.dumps({"keys": [{"sha256": digest, "tenant": "t", "may_set": ["a:*"]}]}))
    assert read_keys(path).find(b"bearer k").tenant == "t"


@pytest.mark.parametrize(
    "key",
    [
        {"sha256": "k"},
        {"sha256": "0" * 64, "may_set": ["a:*:b"]},
        {"sha256": "0" * 64, "facts": [" a"]},
        {"sha256": "0" * 64, "right": []},
        {"sha256": "0" * 64, "rights": ["root"]},
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused(tmp_path: Path, key: dict) -> None:
    """Before anything is served."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [key]}))
    with pytest.raises(InvalidConfig, match=r"keys\.json"):
        read_keys(path)


def test_the_same_key_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two would count?"""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"sha256": "0" * 64}] * 2}))
    with pytest.raises(InvalidConfig, match="twice"):
        read_keys(path)


def test_no_key_at_all_matches_nothing() -> None:
    """A service with an empty list of keys lets nobody in."""
    with client(keys=Keys(())) as call:
        assert call("GET", "/v1/tools").status_code == 401
