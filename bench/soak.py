"""Half load for a long time while the catalog changes: is memory flat, is every turn answered?

    python -m bench.soak [--minutes 20] [--json FILE]

One process: a gateway over a catalog file of made-up tools with a trivial encoder, sessions that
change their facts, come and go, and every ``--swap`` seconds another epoch. A closed loop makes
turns until each store is at its bound (promotions, sessions, definitions; smaller bounds than usual
where that would take long) and all promotions remembered were made after that, then the longest
queue, and then it finds the most turns a second. Half of it is offered for the time asked, while
the resident memory is read every second. Its slope is fitted by least squares; the standard error
is Newey and West's (1987), as one second's memory is much like the last one's.

Exits with 1 if a turn got an error or a tool that its facts do not permit, or if memory grew
beyond noise: a slope above three standard errors, of which the time makes more than 0.5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil

from bench.common import OBJECTS, SYSTEMS, VERBS, made_up_tools
from bench.engine_load import TICK, due_times, quiet_collector, run
from bench.load_server import ROLES, WRITES, TrivialEncoder
from ta_fast import Catalog, Tool, ToolAttention
from ta_fast.engine import Engine
from ta_fast.gateway import Gateway
from ta_fast.schemas import SchemaLoader
from ta_fast.sessions import MemoryStore
from ta_fast.sessions.promotions import REMEMBERED
from ta_fast.types import Promotion, Source, Turn

SESSIONS, CHURN, NEW = 2000, 0.02, 0.05
"""Sessions at a time; shares of turns before which facts change, and which begin a session."""
TENANTS, KEPT_SESSIONS = 7, 500  # sessions of each tenant; 100,000 is usual
FIRST, AT_ONCE, BACKLOG = 20_000, 64, 4096
"""Turns of a closed loop; under way in the one that finds the most a second, and in that which
makes the longest queue: its memory stays with the process."""
SWITCH = 0.0005  # seconds, as with a GPU: the swaps beside it take less of a turn's time
BINS = 1e-5 * 1.02 ** np.arange(900)
"""Upper bounds of a turn's seconds, 2 % apart, up to ten minutes."""
LOADED = 1 << 20  # bytes of definitions kept; 64 MiB is usual
SIGMAS, SHARE = 3.0, 0.005
COLLECT = 60  # seconds between collections of all garbage; the service's are ten minutes


@dataclass(slots=True)
class Seen:
    """Counts that take as much memory at the end as at the beginning."""

    times: Any = field(default_factory=lambda: np.zeros(len(BINS) + 1, np.int64))
    errors: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        below = np.searchsorted(np.cumsum(self.times), share * self.times.sum())
        return 1e3 * float(BINS[min(int(below), len(BINS) - 1)])


class Soak:
    """A gateway, its catalog and its sessions.

    Args:
        folder: Where the catalog's file is made.
        tools: How many.
    """

    def __init__(self, folder: Path, tools: int) -> None:
        self._random = random.Random(3)  # noqa: S311 - the same load every time
        self._rows = made_up_tools(tools)
        self._catalog = Catalog(folder / "soak.db")
        self._put(0)
        encoder = TrivialEncoder()
        loader = SchemaLoader(self._catalog, LOADED)
        attention = ToolAttention(self._catalog, encoder, loader=loader, scorer="numpy")
        self._loader, self._sessions = loader, MemoryStore(limit=KEPT_SESSIONS)
        self.gateway = Gateway({"": attention}, Engine(), [encoder], lambda _: self._sessions)
        self._facts = [self._random.choice(ROLES) for _ in range(SESSIONS)]
        self._ids, self._begun = list(range(SESSIONS)), SESSIONS
        self.seen, self.swaps = Seen(), 0

    def _put(self, edition: int) -> None:
        """Write the tools; one in twenty changes with the edition, and one comes and goes."""
        made = []
        for i, row in enumerate(self._rows[: len(self._rows) - edition % 2]):
            changed = f" Edition {edition}." if i % 20 == edition % 20 else ""
            needs = {"all_of": [needed(str(row["id"]))]}
            name, text = str(row["name"]), f"{row['description']}{changed}"
            schema: Any = row["inputSchema"]
            made.append(
                Tool(str(row["id"]), name, text, schema, str(row["server"]), precondition=needs)
            )
        self._catalog.replace([Source("made up", made)])

    async def swap(self, every: float, ended: Callable[[], bool]) -> None:
        """Change the catalog now and then, and follow it while turns go on."""
        while not ended():
            await asyncio.sleep(every)
            self.swaps += 1
            await asyncio.to_thread(self._put, self.swaps)
            await self.gateway.reload()

    async def turn(self, due: float) -> None:
        """One turn of some session, and a look at its answer."""
        number, pick = self._random.randrange(SESSIONS), self._random.choice
        chance = self._random.random()
        if chance < CHURN:
            self._facts[number] = pick(ROLES)
        elif chance > 1 - NEW:
            self._ids[number] = self._begun = self._begun + 1
        facts = self._facts[number]
        intent = (
            f"{pick(VERBS)} the {pick(OBJECTS)} {self._random.randrange(50)} in {pick(SYSTEMS)}"
        )
        asked = Turn(intent, facts, top_k=5, threshold=0.1)
        got: object
        try:
            (got,) = await self.gateway.route(
                [asked], sessions=[f"{self._ids[number]}"], tenant=f"{number % TENANTS}"
            )
        except Exception as error:  # counted, and the soak fails
            got = error
        if not isinstance(got, Promotion):
            self.seen.errors[type(got).__name__] += 1
        elif not all(needed(tool.id) in facts for tool in got.tools):
            self.seen.errors["a tool that the facts do not permit"] += 1
        self.seen.times[np.searchsorted(BINS, perf_counter() - due)] += 1

    async def most(self, turns: int, at_once: int) -> float:
        """Turns a second of a closed loop of so many, ``at_once`` of them under way."""
        began, left = perf_counter(), turns

        async def ask() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self.turn(perf_counter())

        await asyncio.gather(*(ask() for _ in range(at_once)))
        return turns / (perf_counter() - began)

    async def offer(self, rate: float, seconds: float) -> None:
        """Turns at random times."""
        due, until, open_ = due_times(rate), perf_counter() + seconds, set()
        at = next(due)
        while perf_counter() < until:
            while at <= perf_counter():
                task = asyncio.ensure_future(self.turn(at))
                open_.add(task)
                task.add_done_callback(open_.discard)
                at = next(due)
            await asyncio.sleep(TICK)
        await asyncio.gather(*open_)

    def full(self) -> bool:
        """Whether all stores are at their bounds."""
        promotions, definitions = self.gateway.catalog().made, self._loader.stats
        return (
            len(promotions) >= REMEMBERED
            and len(self._sessions) == TENANTS * KEPT_SESSIONS
            and definitions.entries < definitions.misses
        )

    async def warm_up(self) -> float:
        """Turns until all stores are at their bounds; then the most turns a second."""
        while not self.full():
            await self.most(FIRST, AT_ONCE)
        quiet_collector()
        # Promotions hold the lists of sessions, which were shorter while these filled.
        await self.most(REMEMBERED, AT_ONCE)
        await self.most(FIRST, BACKLOG)
        return await self.most(FIRST, AT_ONCE)

    async def run(self, seconds: float, every: float) -> dict[str, Any]:
        """Warm up, offer half of the most, and read the memory meanwhile."""
        ended = False
        swapping = asyncio.ensure_future(self.swap(every, lambda: ended))
        began = perf_counter()
        rate, warm = await self.warm_up() / 2, perf_counter() - began
        early, self.seen, self.swaps = self.seen.errors, Seen(), 0
        memory: list[float] = []
        reading = asyncio.ensure_future(read_memory(memory))
        began = perf_counter()
        await self.offer(rate, seconds)
        wall, ended = perf_counter() - began, True
        reading.cancel()
        await swapping
        await self.gateway.aclose()
        return {
            "offered_per_s": round(rate),
            "turns_per_s": round(int(self.seen.times.sum()) / wall),
            "turns": int(self.seen.times.sum()),
            "ms": {f"p{100 * q:g}": round(self.seen.quantile(q), 2) for q in (0.5, 0.99, 0.999)},
            "warm_up_s": round(warm),
            "swaps": self.swaps,
            "errors": dict(early + self.seen.errors),
            "memory": asdict(Fit.of(np.array(memory))),
            "megabytes": [round(reading, 1) for reading in memory],
        }


def needed(tool: str) -> str:
    """The fact that a made-up tool needs."""
    server, _, name = tool.partition("__")
    way = "write" if name.partition("_")[0] in WRITES else "read"
    return f"scope:{server}:{way}"


async def read_memory(into: list[float]) -> None:
    """Megabytes that the process has in memory, every second."""
    process = psutil.Process()
    while True:
        into.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(1.0)
        if len(into) % COLLECT == 0:
            gc.collect()


@dataclass(frozen=True, slots=True)
class Fit:
    """A line through memory read every second: megabytes, and megabytes a minute."""

    first: float
    last: float
    mean: float
    slope: float
    standard_error: float
    seconds: int
    flat: bool

    @classmethod
    def of(cls, memory: np.ndarray[Any, np.dtype[np.float64]]) -> Fit:
        """Least squares; the error allows for neighbours that are alike, over a fifth of them."""
        n = len(memory)
        time = np.arange(n) - (n - 1) / 2
        slope = float(time @ memory / (time @ time))
        scores = time * (memory - memory.mean() - slope * time)
        lags = max(1, n // 5)
        spread = scores @ scores + 2 * sum(
            (1 - lag / (lags + 1)) * float(scores[lag:] @ scores[:-lag]) for lag in range(1, lags)
        )
        error = float(np.sqrt(max(0.0, spread)) / (time @ time))
        small = slope * n <= SHARE * memory.mean()
        return cls(
            round(float(memory[0]), 3),
            round(float(memory[-1]), 3),
            round(float(memory.mean()), 3),
            round(60 * slope, 5),
            round(60 * error, 5),
            n,
            bool(small or slope <= SIGMAS * error),
        )


def main() -> int:
    """Soak; 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tools", type=int, default=200)
    parser.add_argument("--swap", type=float, default=2.0, help="seconds between epochs")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.tools)
        found = run(soak.run(60 * options.minutes, options.swap))
    found |= {
        "minutes": options.minutes,
        "tools": options.tools,
        "python": platform.python_version(),
        "command": " ".join(sys.orig_argv[1:]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    text = json.dumps(found, indent=1)
    print(json.dumps(found | {"megabytes": "in the file"}, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if found["errors"] or not found["memory"]["flat"] else 0


if __name__ == "__main__":
    sys.exit(main())
