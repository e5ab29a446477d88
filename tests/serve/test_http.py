import asyncio
import re

import pytest

from ta_fast.gateway import Gateway
from ta_fast.serve import Keys, Settings
from ta_fast.serve.errors import STATUSES
from tests.serve.service import client

TURN = {"intent": "send an email", "threshold": -1}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'"\\ud800"', 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"turns": []}', 422),
        (b'{"turns": [{"intent": 1}]}', 422),
        (b'{"turns": [{"intent": "a", "intents": "b"}]}', 422),
        (b'{"turns": [{"intent": "a", "top_k": 1e400}]}', 422),
        (b'{"turns": [{"intent": "a", "top_k": 100000000000000000000}]}', 422),
        (b'{"turns": [{"intent": "a", "threshold": NaN}]}', 400),
        (b'{"turns": [{"intent": "a", "session": "\\u0000"}]}', 422),
    ],
)
def test_bodies_that_are_not_as_described(content: bytes, status: int) -> None:
    """400 for what is no JSON, 422 for JSON of another shape; always an error in JSON."""
    with client() as call:
        answer = call("POST", "/v1/route", content=content)
        assert answer.status_code == status, answer.text
        assert status == 200 or answer.json()["error"]["status"] == status


@pytest.mark.parametrize("number", ["1e308", "-0.0", "123456789012345678901234567890", "0.1e-400"])
def test_arguments_may_hold_any_number(number: str) -> None:
    """What can be read is answered, whatever it is."""
    with client() as call:
        handle = call.route(TURN)[0]["promotion"]["handle"]
        calls = f'[{{"id": "1", "name": "mail__read", "arguments": {{"n": {number}}}}}]'
        content = f'{{"handle": "{handle}", "calls": {calls}}}'.encode()
        assert call("POST", "/v1/check", content=content).status_code in (200, 400)


def test_a_body_nested_too_deeply() -> None:
    """It is refused, and takes no stack with it."""
    with client() as call:
        content = b'{"handle": "h", "form": "openai", "answer": {"a": ' + b"[" * 100_000
        assert call("POST", "/v1/check", content=content).status_code == 400


def test_paths_and_methods_that_do_not_exist() -> None:
    """404 and 405, the latter with what is allowed."""
    with client() as call:
        for path in ("/", "/v1/sessions/", "/v1/sessions/{id}/", "/v2/route", "/v1/route/"):
            assert call("PUT", path).status_code in (404, 405), path
        assert call("GET", "/v1/nothing").json()["error"]["type"] == "NotFound"
        wrong = call("PUT", "/v1/route")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_a_body_over_the_limit_is_refused_unread() -> None:
    """By its announced length, and by what comes of one that announces none."""

    async def endless():
        while True:
            yield b"x" * 1000

    with client(settings=Settings(max_body=5000)) as call:
        assert call("POST", "/v1/route", content=b"x" * 5001).status_code == 413
        assert call("POST", "/v1/route", content=endless()).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    """408 after the time of an exchange."""

    async def stuck():
        yield b"{"
        await asyncio.sleep(30)

    with client(settings=Settings(exchange=0.2)) as call:
        assert call("POST", "/v1/route", content=stuck()).status_code == 408


def test_a_trace_is_continued() -> None:
    """The trace's id and flags come back with a span of the service's; a wrong one is dropped."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    with client() as call:
        parent = f"00-{trace}-b7ad6b7169203331-01"
        found = call("GET", "/healthz", headers={"traceparent": parent}).headers["traceparent"]
        assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-01", found)
        assert found != parent
        for wrong in (
            f"00-{trace}-{'0' * 16}-01",
            f"ff-{trace}-b7ad6b7169203331-01",
            parent + "-x",
        ):
            other = call("GET", "/healthz", headers={"traceparent": wrong}).headers["traceparent"]
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", other)


def test_metrics_are_prometheus_text() -> None:
    """Every family has a type; histograms add up; what happened is counted."""
    with client() as call:
        call.route(TURN, TURN)
        call("POST", "/v1/route", content=b"{")
        answer = call("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if line[0] != "#")
        typed = set(re.findall(r"^# TYPE (\S+)", answer.text, re.MULTILINE))
    assert samples["ta_fast_promotions_total"] == "2"
    assert samples["ta_fast_turns_total"] == "2"
    refused = 'ta_fast_http_requests_total{method="POST",path="/v1/route",status="400"}'
    assert samples[refused] == "1"
    assert samples['ta_fast_http_request_seconds_bucket{path="/v1/route",le="+Inf"}'] == "2"
    assert samples['ta_fast_http_request_seconds_bucket{path="/v1/route",le="1e-06"}'] == "0"
    assert int(samples['ta_fast_stage_seconds_count{stage="run"}']) >= 1
    names = {re.split(r"(_bucket|_sum|_count)?(\{|$)", name)[0] for name in samples}
    assert names <= typed


def test_tokens_saved_are_counted() -> None:
    """What all schemas would take, less what was sent."""
    with client() as call:
        while not (tokens := call.service.metrics.catalog_tokens.get("")):
            call.runner.run(asyncio.sleep(0.01))
        (found,) = call.route(TURN)
        sent = found["promotion"]["pool_tokens"] + found["promotion"]["schema_tokens"]
        assert (
            f"ta_fast_tokens_saved_total {max(0, tokens - sent)}\n" in call("GET", "/metrics").text
        )


def test_health_is_progress() -> None:
    """Turns that wait too long without any being finished make it unhealthy."""
    with client(settings=Settings(stalled=-1.0)) as call:
        assert call("GET", "/healthz").status_code == 503
        assert call("GET", "/readyz").status_code == 200
    with client() as call:
        assert call("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("state", "ready", "route"),
    [("starting", 503, 200), ("ready", 200, 200), ("leaving", 503, 200), ("draining", 503, 503)],
)
def test_readiness_goes_before_turns_are_refused(state: str, ready: int, route: int) -> None:
    """And who leaves keeps no connections."""
    with client(keys=Keys(None)) as call:
        call.service.state = state  # type: ignore[assignment]
        answer = call("GET", "/readyz")
        assert answer.status_code == ready
        assert (answer.headers.get("connection") == "close") == (state in ("leaving", "draining"))
        routed = call("POST", "/v1/route", {"turns": [TURN]})
        assert routed.status_code == route
        assert route == 200 or routed.headers["retry-after"] == "1"


def test_a_fault_is_told_without_its_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 says nothing of the inside; the log does."""

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    with client() as call:
        monkeypatch.setattr(Gateway, "route", broken)
        answer = call("POST", "/v1/route", {"turns": [TURN]})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "secret" in caplog.text


def test_every_status_has_its_meaning() -> None:
    """The one table covers what ta_fast raises."""
    from ta_fast import errors

    raised = {e.status for e in vars(errors).values() if hasattr(e, "status")}
    assert raised <= set(STATUSES)
