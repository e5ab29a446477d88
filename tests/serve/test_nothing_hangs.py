import contextlib
import json
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.serve.service import Process, process

pytestmark = pytest.mark.timeout(60)


def head(length: int, path: str = "/v1/route") -> bytes:
    """A request without its body."""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode()


def request(*intents: str) -> bytes:
    """A whole request."""
    turns = [{"intent": intent, "threshold": -1} for intent in intents]
    body = json.dumps({"turns": turns, "form": "openai"}).encode()
    return head(len(body)) + body


def still_serves(served: Process) -> None:
    """Healthy traffic goes on, quickly."""
    started = time.monotonic()
    assert served.route("send an email").status_code == 200
    assert time.monotonic() - started < 5


def status(connection: socket.socket) -> bytes:
    """The status of what is answered; nothing if the connection was closed."""
    return connection.recv(65536)[9:12]


def test_a_service_that_starts_refuses_turns_until_it_is_ready() -> None:
    """The port is open at once; 503 until the gateway is there."""
    with process(wait=False) as served:
        seen = set()
        until = time.monotonic() + 20
        while 200 not in seen and time.monotonic() < until:
            with contextlib.suppress(httpx2.TransportError):
                answer = served.route("send an email")
                seen.add(answer.status_code)
            time.sleep(0.05)
        assert seen == {503, 200}


def test_clients_that_come_and_go() -> None:
    """Half of all clients hang up at every point of an exchange; the others are answered."""
    with process() as served:
        whole = request("send a slow email")
        for cut in (1, 20, len(whole) - 5, len(whole)):
            for _ in range(10):
                with served.connect() as connection:
                    connection.sendall(whole[:cut])
            still_serves(served)


def test_a_client_that_does_not_read() -> None:
    """Its answers wait for it, and nobody else does; at last it is let go."""
    with process() as served, served.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(2)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(400):
                slow.sendall(request(*["send an email"] * 200))
        still_serves(served)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 0


def test_a_body_that_never_comes() -> None:
    """408, and the connection is closed."""
    with process() as served, served.connect() as slow:
        slow.sendall(head(1000) + b"{")
        assert status(slow) == b"408"
        still_serves(served)


def test_oversized_requests() -> None:
    """Bodies over the limit, announced or chunked, and heads without an end."""
    with process() as served:
        with served.connect() as big:
            big.sendall(head(1 << 40))
            assert status(big) == b"413"
        with served.connect() as chunked, contextlib.suppress(ConnectionError):
            chunked.sendall(
                b"POST /v1/route HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for _ in range(6):
                chunked.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
            assert status(chunked) == b"413"
        with served.connect() as endless, contextlib.suppress(ConnectionError):
            endless.sendall(b"GET / HTTP/1.1\r\n")
            for _ in range(100):
                endless.sendall(b"x: " + b"y" * 10_000 + b"\r\n")
            assert status(endless) in (b"400", b"")
        still_serves(served)


def test_random_bytes() -> None:
    """As requests and as bodies: never a fault, and the next client is served."""
    rng = random.Random(7)  # noqa: S311 - the same noise every time
    with process() as served:
        for size in (1, 10, 1000, 100_000) * 5:
            noise = rng.randbytes(size)
            for sent in (noise, head(size) + noise, head(size, "/v1/check") + noise):
                with served.connect() as connection, contextlib.suppress(ConnectionError):
                    connection.sendall(sent)
                    connection.shutdown(socket.SHUT_WR)
                    assert status(connection) in (b"400", b"413", b"422", b"")
        still_serves(served)


def test_one_poison_turn_fails_alone() -> None:
    """The encoder breaks on it; those beside it and after it are answered."""
    with process() as served, ThreadPoolExecutor(20) as threads:
        intents = ["poison" if i == 7 else "send an email" for i in range(20)]
        statuses = [answer.status_code for answer in threads.map(served.route, intents)]
        assert statuses[:7] + statuses[8:] == [200] * 19
        assert statuses[7] == 503
        still_serves(served)


def test_sigterm_under_load_answers_what_was_accepted() -> None:
    """Readiness goes first; until the port closes, half a second later, all are answered."""
    with process() as served:
        answers: list[int] = []
        broken: list[float] = []
        stopped = threading.Event()

        def ask() -> None:
            with httpx2.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=20) as http:
                while not stopped.is_set():
                    body = {"turns": [{"intent": "send a slow email", "threshold": -1}]}
                    sent = time.monotonic()
                    try:
                        answers.append(http.post("/v1/route", json=body).status_code)
                    except httpx2.ConnectError:
                        return  # not accepted: the port is closed
                    except httpx2.TransportError:
                        broken.append(sent)

        with ThreadPoolExecutor(20) as threads:
            asking = [threads.submit(ask) for _ in range(20)]
            time.sleep(1)
            signalled = time.monotonic()
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.15)
            assert served.get("/readyz") == 503
            assert served.process.wait(20) == 0
            stopped.set()
            for each in asking:
                each.result(timeout=20)
        assert set(answers) <= {200, 503}
        assert answers.count(200) >= 20
        assert all(sent > signalled + 0.45 for sent in broken)


def test_a_gateway_that_cannot_be_opened_ends_the_process() -> None:
    """With its error, and not with a port that answers 503 for ever."""
    from ta_fast.errors import InvalidConfig
    from ta_fast.serve import Keys, Service, serve

    def fail() -> None:
        raise InvalidConfig("there is no catalog")

    with pytest.raises(InvalidConfig, match="no catalog"):
        serve(fail, Service(Keys(None)), "127.0.0.1", 0)  # type: ignore[arg-type]
