"""MCP servers: the file that names them, and listings of real servers, good and bad."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ta_fast.catalog.mcp_json import McpServer, read_mcp_json
from ta_fast.catalog.mcp_servers import LiveTools, list_tools
from ta_fast.errors import InvalidCatalog, SchemaUnavailable, UnknownTool

SIMPLE = """
import os, sys
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("simple")

@server.tool(annotations=ToolAnnotations(title="Add", read_only_hint=True, destructive_hint=False))
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool()
def env(name: str = os.environ.get("GREETING", "")) -> str:
    "Say the greeting."
    return name

if len(sys.argv) > 1:
    server.run("streamable-http", port=int(sys.argv[1]))
else:
    if (log := os.environ.get("STARTS")):
        open(log, "a").write("x")
    server.run()
"""

PAGED = """
import sys
import anyio
import mcp_types as types
from mcp.server import Server
from mcp.server.stdio import stdio_server

async def pages(context, params):
    cursor = params.cursor if params else None
    page = int(cursor or 0)
    tools = [
        types.Tool(
            name=f"tool_{page}_{n}",
            input_schema={"type": "object", "properties": {"a": {"default": None}}, "$defs": {}},
        )
        for n in range(2)
    ]
    last = 2
    after = {"ends": page + 1 if page < last else None, "repeats": 1, "endless": page + 1}
    following = after[sys.argv[1]]
    return types.ListToolsResult(
        tools=tools, next_cursor=None if following is None else str(following)
    )

async def main():
    server = Server("paged", on_list_tools=pages)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

anyio.run(main)
"""

HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{child.pid}")
print("still thinking", file=sys.stderr, flush=True)
time.sleep(600)
"""


def script(folder: Path, text: str, *args: str, name: str = "s", **env: str) -> McpServer:
    """A stdio server that runs ``text``."""
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return McpServer(name, command=sys.executable, args=(str(path), *args), env=env)


def no_children() -> bool:
    """Whether every process that the call started is gone."""
    return not psutil.Process().children(recursive=True)


def read(folder: Path, content: object, **environ: str) -> list[McpServer]:
    """Read an ``mcp.json`` with this content."""
    path = folder / "mcp.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_mcp_json(path, environ)


def test_variables_are_expanded_everywhere(tmp_path: Path) -> None:
    """In commands, arguments, environment, folders, addresses and headers; other text stays."""
    servers = read(
        tmp_path,
        {
            "mcpServers": {
                "a": {
                    "command": "${BIN}/run",
                    "args": ["--key=${KEY}", "$KEY", "${NONE:-x}"],
                    "env": {"TOKEN": "${KEY}"},
                    "cwd": "${BIN}",
                    "autoApprove": [],
                },
                "b": {
                    "type": "http",
                    "url": "http://${HOST:-localhost}/mcp",
                    "headers": {"Authorization": "Bearer ${KEY}"},
                    "timeout": 5,
                },
            }
        },
        BIN="/bin",
        KEY="k",
        HOST="",
    )
    stdio, http = servers
    assert (stdio.command, stdio.cwd) == ("/bin/run", "/bin")
    assert stdio.args == ("--key=k", "$KEY", "x")
    assert stdio.env == {"TOKEN": "k"}
    assert http.url == "http://localhost/mcp"
    assert http.headers == {"Authorization": "Bearer k"}
    assert "Bearer" not in repr(http)


def test_a_missing_variable_fails_its_server_only(tmp_path: Path) -> None:
    """The variable is named; the other server is there; a disabled one is not looked at."""
    servers = read(
        tmp_path,
        {
            "mcpServers": {
                "a": {"command": "x", "env": {"T": "${NOPE}"}},
                "b": {"command": "no-such-program"},
                "c": {"url": "http://x", "type": "sse"},
                "d": {"command": "${ALSO_NOPE}", "disabled": True},
            }
        },
    )
    sources, failures = list_tools(servers, timeout=5)
    assert sources == []
    assert failures == {
        "a": "the environment variable NOPE is not set",
        "b": "cannot be started: 'no-such-program': No such file or directory",
        "c": "type 'sse' is not supported; expected stdio or http",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "expected .*mcpServers.*, found list"),
        ({"mcpservers": {}}, "is 'mcpservers' meant to be it"),
        ({"mcpServers": []}, "mcpServers is list"),
        ({"mcpServers": {"a": 1}}, "server 'a' is int"),
        ({"mcpServers": {" ": {"command": "x"}}}, "empty name"),
        ({"mcpServers": {"a": {"args": []}}}, "server 'a': has args; expected 'url'"),
        ({"mcpServers": {"a": {"command": "x", "args": "y"}}}, "args is not an array of texts"),
        ({"mcpServers": {"a": {"command": "x", "env": {"N": 1}}}}, "env is not an object of texts"),
        ({"mcpServers": {"a": {"command": "x", "cwd": 1}}}, "cwd is not a text"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: object, words: str) -> None:
    """The server and the key are named."""
    with pytest.raises(InvalidCatalog, match=words):
        read(tmp_path, content)


def test_stdio_servers_are_listed_and_gone(tmp_path: Path) -> None:
    """Tools come with ids, schemas and annotations under MCP's names; progress is told."""
    simple = script(tmp_path, SIMPLE, name="simple", GREETING="hello")
    done: list[str] = []
    (source,), failures = list_tools([simple], timeout=30, progress=done.append)
    assert failures == {}
    assert (source.name, done) == ("mcp:simple", ["simple"])
    add, env = source.tools
    assert (add.id, add.server, add.name) == ("simple__add", "simple", "add")
    assert add.description == "Add two numbers."
    assert set(add.input_schema["properties"]) == {"a", "b"}
    assert add.annotations == {"title": "Add", "readOnlyHint": True, "destructiveHint": False}
    assert env.input_schema["properties"]["name"]["default"] == "hello"
    assert no_children()


def test_pages_are_followed_to_their_end(tmp_path: Path) -> None:
    """All pages are read; a cursor that comes back, or never ends, is a failure."""
    servers = [script(tmp_path, PAGED, mode, name=mode) for mode in ("ends", "repeats", "endless")]
    (source,), failures = list_tools(servers, timeout=30)
    assert [tool.name for tool in source.tools] == [
        f"tool_{p}_{n}" for p in range(3) for n in (0, 1)
    ]
    assert source.tools[0].input_schema == {
        "type": "object",
        "properties": {"a": {"default": None}},
        "$defs": {},
    }
    assert "repeats the cursor '1'" in failures["repeats"]
    assert "more than 1000 pages" in failures["endless"]
    assert no_children()


def test_bad_servers_are_reported_and_the_others_kept(tmp_path: Path) -> None:
    """A server that ends gives its last words; one that hangs is stopped with its children."""
    pid_file = tmp_path / "pid"
    ends = script(
        tmp_path,
        "import sys; print('API_KEY is missing', file=sys.stderr); sys.exit(3)",
        name="ends",
    )
    hangs = script(tmp_path, HANGS, str(pid_file), name="hangs")
    twice = script(tmp_path, SIMPLE, name="simple")
    sources, failures = list_tools([ends, hangs, twice], timeout=4)
    assert [source.name for source in sources] == ["mcp:simple"]
    assert "API_KEY is missing" in failures["ends"]
    assert "gave no list of tools within 4 s" in failures["hangs"]
    assert "still thinking" in failures["hangs"]
    assert no_children()
    assert not is_alive(int(pid_file.read_text()))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    """The address of a streamable HTTP server on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = script(tmp_path, SIMPLE, str(port))
    process = subprocess.Popen(
        [server.command, *server.args], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


def test_streamable_http_servers_are_listed(http_url: str) -> None:
    """One that answers is listed; one that does not, or has no MCP there, is reported."""
    servers = [
        McpServer("web", url=http_url, headers={"X-Key": "k"}),
        McpServer("elsewhere", url=http_url.replace("/mcp", "/other")),
        McpServer("nobody", url="http://127.0.0.1:1/mcp"),
    ]
    (source,), failures = list_tools(servers, timeout=15)
    assert [tool.id for tool in source.tools] == ["web__add", "web__env"]
    assert set(failures) == {"elsewhere", "nobody"}
    assert "HTTP 404" in failures["elsewhere"]


def test_live_tools_are_listed_once_for_many_threads(tmp_path: Path) -> None:
    """Threads share one listing; an unknown tool and a broken server are told apart."""
    log = tmp_path / "starts"
    simple = script(tmp_path, SIMPLE, name="simple", STARTS=str(log))
    live = LiveTools([simple, McpServer("broken", command="no-such-program")], timeout=30)
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.append(live.tool("simple__add").name))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == ["add"] * 8
    assert log.read_text() == "x"
    with pytest.raises(UnknownTool, match="simple__nope"):
        live.tool("simple__nope")
    with pytest.raises(UnknownTool, match="nowhere__add"):
        live.tool("nowhere__add")
    with pytest.raises(SchemaUnavailable, match=r"'broken': cannot be started"):
        live.tool("broken__add")


def test_live_tools_are_listed_again_when_they_are_old(tmp_path: Path) -> None:
    """A listing older than ``max_age`` is not used."""
    log = tmp_path / "starts"
    simple = script(tmp_path, SIMPLE, name="simple", STARTS=str(log))
    live = LiveTools([simple], timeout=30, max_age=0)
    assert live.tool("simple__add").name == "add"
    assert live.tool("simple__env").name == "env"
    assert log.read_text() == "xx"


def test_a_servers_environment_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gets its ``env`` and a few safe variables, not every secret of this process."""
    monkeypatch.setenv("GREETING", "secret")
    (source,), _ = list_tools([script(tmp_path, SIMPLE)], timeout=30)
    assert source.tools[1].input_schema["properties"]["name"]["default"] == ""
    assert os.environ["GREETING"] == "secret"
