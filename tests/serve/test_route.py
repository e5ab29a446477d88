import pytest

from ta_fast.engine import Limits
from ta_fast.errors import Overloaded
from ta_fast.gateway import Gateway
from tests.serve.service import client

SEND = {"intent": "send an email", "threshold": -1}


def ids(result: dict) -> list[str]:
    """What a turn was promoted."""
    return [tool["id"] for tool in result["promotion"]["tools"]]


def test_a_turn_is_promoted_what_its_facts_allow() -> None:
    """Facts of the turn, of its session and of the key count; nothing else is named."""
    with client() as call:
        assert sorted(ids(call.route(SEND)[0])) == ["mail__read", "mail__send"]
        opened = call.route({**SEND, "facts": ["scope:repo:write"]})
        assert "repo__push" in ids(opened[0])
        assert call("POST", "/v1/sessions/s", {"grant": ["scope:repo:write"]}).status_code == 200
        assert "repo__push" in ids(call.route({**SEND, "session": "s"})[0])
        frozen = call.route({**SEND, "session": "s"}, bearer="eve")
        assert "repo__push" not in ids(frozen[0])


def test_many_turns_fail_each_alone() -> None:
    """A bad turn among good ones has an error of its own; a lone one is the answer."""
    with client() as call:
        good, bad = call.route(SEND, {"intent": " "})
        assert ids(good)[0] == "mail__send"
        assert bad["error"]["type"] == "InvalidTurn"
        alone = call("POST", "/v1/route", {"turns": [{"intent": " "}]})
        assert (alone.status_code, alone.json()["error"]["type"]) == (422, "InvalidTurn")


def test_a_prompt_comes_in_the_form_asked_for() -> None:
    """The promoted schemas as ta_fast.prompt writes them; the pool is that of /v1/tools."""
    with client() as call:
        turn = {**SEND, "top_k": 1}
        (found,) = call.route(turn, form="anthropic")
        prompt = found["promotion"]["prompt"]
        assert [tool["name"] for tool in prompt["tools"]] == ["mail__send"]
        assert prompt["tools"][0]["input_schema"]["required"] == ["to"]
        (frozen,) = call.route(turn, form="openai", delivery="frozen")
        assert len(frozen["promotion"]["prompt"]["messages"]) == 2
        pair = call("POST", "/v1/route", {"turns": [turn], "form": "mcp", "delivery": "reference"})
        assert pair.status_code == 400


def test_calls_are_checked_and_successes_reported() -> None:
    """after_model and after_tool, by handle: also from a provider's own answer."""
    with client() as call:
        (found,) = call.route({**SEND, "top_k": 1, "session": "s"})
        handle = found["promotion"]["handle"]
        calls = [
            {"id": "1", "name": "mail__send", "arguments": {"to": "ada"}},
            {"id": "2", "name": "mail__send", "arguments": {}},
            {"id": "3", "name": "mail__read"},
            {"id": "4", "name": "repo__push"},
        ]
        verdict = call("POST", "/v1/check", {"handle": handle, "calls": calls}).json()
        assert [(c["id"], c["tool"]) for c in verdict["accepted"]] == [("1", "mail__send")]
        reasons = ["invalid_arguments", "tool_not_promoted", "unknown_tool"]
        assert [c["reason"] for c in verdict["rejected"]] == reasons
        answer = {"content": [{"type": "tool_use", "id": "x", "name": "nope", "input": {}}]}
        told = {"handle": handle, "answer": answer, "form": "anthropic"}
        (rejected,) = call("POST", "/v1/check", told).json()["rejected"]
        assert rejected["result"]["tool_use_id"] == "x"
        done = call("POST", "/v1/succeeded", {"handle": handle, "tool": "mail__send"})
        assert done.json() == {"facts": ["milestone:sent", "seen:mail__send"]}
        assert call("GET", "/v1/sessions/s").json() == done.json()


def test_a_handle_belongs_to_its_tenant() -> None:
    """Another tenant's promotion is answered like one that never was."""
    with client() as call:
        handle = call.route(SEND)[0]["promotion"]["handle"]
        theirs = call("POST", "/v1/check", {"handle": handle, "calls": []}, "bob")
        nobodys = call("POST", "/v1/check", {"handle": "none", "calls": []}, "bob")
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(handle, "none") == nobodys.text


def test_an_answer_that_is_no_answer_of_its_form() -> None:
    """What the model's side sends may be anything; it is refused, not tripped over."""
    with client() as call:
        handle = call.route(SEND)[0]["promotion"]["handle"]
        body = {"handle": handle, "form": "openai", "answer": {"tool_calls": [{"function": "x"}]}}
        assert call("POST", "/v1/check", body).status_code == 400
        both = {"handle": handle, "calls": [], "answer": {}, "form": "openai"}
        assert call("POST", "/v1/check", both).status_code == 400


def test_sessions_are_read_changed_and_forgotten() -> None:
    """Grant, revoke, reach, delete; ids may hold any printable text."""
    path = "/v1/sessions/a%2Fb%20%C3%A9"
    with client() as call:
        grown = call("POST", path, {"grant": ["scope:repo:a", "scope:repo:b"], "reach": ["plan"]})
        assert grown.json()["facts"] == ["milestone:plan", "scope:repo:a", "scope:repo:b"]
        call("POST", path, {"revoke": ["scope:repo:a"]})
        assert call("GET", path).json() == {"facts": ["milestone:plan", "scope:repo:b"]}
        assert call("GET", path, bearer="bob").json() == {"facts": []}
        assert call("DELETE", path).status_code == 204
        assert call("GET", path).json() == {"facts": []}


def test_tools_are_sent_once_for_each_epoch_and_state() -> None:
    """The ETag changes with what the state allows, and a known one is answered with 304."""
    with client() as call:
        first = call("GET", "/v1/tools")
        assert first.json()["ids"] == ["mail__send", "mail__read"]
        assert "repo__push" not in first.text
        known = {"if-none-match": f'"x", W/{first.headers["etag"]}'}
        again = call("GET", "/v1/tools", headers=known)
        assert (again.status_code, again.content) == (304, b"")
        wider = call("GET", "/v1/tools?fact=scope:repo:write", headers=known)
        assert "repo__push" in wider.json()["ids"]


def test_a_catalog_is_reloaded() -> None:
    """The answer is the epoch that turns are routed against now."""
    with client() as call:
        assert call("POST", "/v1/catalog/reload", {}).json() == {"epoch": 1}
        assert call("POST", "/v1/catalog/reload", {"catalog": "no"}).status_code == 404


def test_overload_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 has Retry-After, in whole seconds."""

    async def route(*_: object, **__: object) -> None:
        error = Overloaded("full")
        error.retry_after = 2.2  # type: ignore[attr-defined]
        raise error

    with client() as call:
        monkeypatch.setattr(Gateway, "route", route)
        answer = call("POST", "/v1/route", {"turns": [SEND]})
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


def test_a_turn_that_is_late_is_told_so() -> None:
    """504, and the next one is answered."""
    with client(limits=Limits(timeout=5)) as call:
        late = call("POST", "/v1/route", {"turns": [{"intent": "slow"}], "timeout": 0.01})
        assert (late.status_code, late.json()["error"]["type"]) == (504, "DeadlineExceeded")
        assert ids(call.route(SEND)[0])[0] == "mail__send"
