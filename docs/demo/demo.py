"""The whole mechanism on the tools of real MCP servers; run it with ``make demo``.

Starts the servers of ``mcp.json``, ingests their tools into a catalog, routes a dozen
intents under two sessions' states, lets a scripted model call tools, and prints what the
gate answered and what each turn cost in tokens. The servers that npm starts need Node.js;
where there is none, they are reported as failed and the others are used.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ta_fast import Catalog, Session, ToolAttention, ToolCall, Turn, make_encoder
from ta_fast.catalog.mcp_json import read_mcp_json
from ta_fast.catalog.mcp_servers import list_tools
from ta_fast.catalog.overrides import apply_overrides, read_overrides
from ta_fast.schemas import SchemaLoader
from ta_fast.types import Promotion, Source

HERE = Path(__file__).parent
TOP_K = 3
MIN_SERVERS = 3
INTENTS = [
    "what changed in the working tree since the last commit?",
    "show me the last five commits",
    "add the edited files to the staging area",
    "commit the staged changes with a message",
    "throw away everything I have staged",
    "start a new branch for this fix",
    "what time is it in Tokyo right now?",
    "if it is 3 pm in Berlin, what time is that in New York?",
    "fetch https://example.com and summarise the page",
    "write the notes into a file called notes.md",
    "which files are in the project directory?",
    "add to the knowledge graph that Alice works on the parser",
]


def main() -> int:
    """Run the demo; 0 when everything that it shows was as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder) / "repository")
        attention, everything = ingest(Path(folder) / "catalog.db", repository)
        reviewer = Session("reviewer", ["mode:read_only"])
        maintainer = Session("maintainer", ["scope:git:write", "role:maintainer"])
        promotions = {s.id: route(attention, s) for s in (reviewer, maintainer)}
        good = answer_calls(attention, maintainer)
        tell_tokens(everything, [p for ps in promotions.values() for p in ps])
        writers = {"git__git_add", "git__git_commit", "git__git_reset"}
        leaked = {i for p in promotions["reviewer"] for i in p.ids} & writers
    if leaked or not good:
        print(f"FAILED: leaked {sorted(leaked)}, calls as expected: {good}")
        return 1
    return 0


def make_repository(path: Path) -> Path:
    """A Git repository with one commit, for the servers to look at."""
    path.mkdir()
    (path / "README.md").write_text("A repository for the demo.\n")
    git = ["git", "-c", "user.name=demo", "-c", "user.email=demo@example.com", "-C", str(path)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "First commit"]):
        subprocess.run([*git, *words], check=True)
    return path


def ingest(path: Path, repository: Path) -> tuple[ToolAttention, int]:
    """Servers to catalog; returns the gate and the tokens of all full schemas."""
    environ = {**os.environ, "DEMO_PYTHON": sys.executable, "DEMO_REPOSITORY": str(repository)}
    print("Starting the MCP servers of docs/demo/mcp.json ...")
    sources, failed = list_tools(read_mcp_json(HERE / "mcp.json", environ), timeout=90)
    for source in sources:
        print(f"  {source.name:16} {len(source.tools):3} tools")
    for server, reason in failed.items():
        print(f"  mcp:{server:12} failed: {reason.splitlines()[0]}")
    if len(sources) < MIN_SERVERS:
        raise SystemExit(f"only {len(sources)} servers started; the demo needs {MIN_SERVERS}")
    overrides = read_overrides(HERE / "overrides.json")
    catalog = Catalog(path)
    catalog.replace(
        [Source(s.name, apply_overrides(s.tools, overrides)[0]) for s in sources],
        known_facts=frozenset(overrides.facts),
    )
    loader = SchemaLoader(catalog)
    tokens = sum(loader.schema(tool.id, 0).tokens for tool in catalog.tools())
    print(f"  {len(catalog)} tools, {tokens} tokens of full schemas on every turn without ta_fast")
    return ToolAttention(catalog, make_encoder()), tokens


def route(attention: ToolAttention, session: Session) -> list[Promotion]:
    """Route every intent under one session's state."""
    print(f"\nSession {session.id!r} with {sorted(session.facts)}")
    promotions = []
    for intent in INTENTS:
        promotion = attention.before_model(Turn(intent, session=session, top_k=TOP_K))
        promotions.append(promotion)
        names = ", ".join(f"{t.id} {t.score:.2f}" for t in promotion.tools) or "nothing"
        milliseconds = 1e3 * sum(promotion.seconds.values())
        print(f"  {intent[:52]:52} -> {names}  [{milliseconds:.1f} ms]")
    return promotions


def answer_calls(attention: ToolAttention, session: Session) -> bool:
    """Let a scripted model call tools; returns whether the gate answered as it should."""
    print(f"\nCalls of a scripted model, session {session.id!r}")
    intent = "add the edited files to the staging area"
    staging = attention.before_model(Turn(intent, session=session, top_k=TOP_K))
    calls = [
        ToolCall("1", "git__git_add", {"repo_path": ".", "files": ["README.md"]}),
        ToolCall("2", "git__git_add", {"repo_path": "."}),
        ToolCall("3", "git__git_log", {"repo_path": "."}),
        ToolCall("4", "git__git_commit", {"repo_path": ".", "message": "done"}),
    ]
    verdict = attention.after_model(staging, calls)
    for accepted in verdict.accepted:
        print(f"  call {accepted.call.id} accepted: {accepted.tool_id}")
    for rejected in verdict.rejected:
        print(f"  call {rejected.call_id} rejected: {rejected.reason}: {rejected.message}")
        print(f"         available: {', '.join(rejected.available)}")
    attention.after_tool(staging, "git__git_add")
    commit = Turn("commit the staged changes with a message", session=session, top_k=TOP_K)
    now = attention.before_model(commit).ids
    print(f"  after git_add has succeeded, {commit.intent!r} -> {', '.join(now)}")
    reasons = [rejected.reason for rejected in verdict.rejected]
    return (
        [accepted.call.id for accepted in verdict.accepted] == ["1"]
        and reasons == ["invalid_arguments", "tool_not_promoted", "unknown_tool"]
        and "git__git_commit" in now
    )


def tell_tokens(everything: int, promotions: list[Promotion]) -> None:
    """Tool tokens per turn, before and after."""
    pool = sum(p.pool_tokens for p in promotions) / len(promotions)
    schemas = sum(p.schema_tokens for p in promotions) / len(promotions)
    print("\nTool tokens per turn (cl100k_base, mean of the turns above)")
    print(f"  before: {everything:6}  every full schema")
    print(
        f"  after:  {pool + schemas:6.0f}  summary pool {pool:.0f} + promoted schemas {schemas:.0f}"
    )
    print(f"  after:  {schemas:6.0f}  with the summary pool in the provider's prompt cache")


if __name__ == "__main__":
    sys.exit(main())
