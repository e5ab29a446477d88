"""What a turn costs this process's threads, where a device only waits.

    python -m bench.engine_threads --out bench/results/engine_threads.json

A device that sleeps 4 us a turn stands for a fast GPU; tokens and terms are MiniLM's, of running
words. Texts are read in this process and by processes; dense and hybrid; sessions that ask one turn
at a time, and requests of many turns, on one device and on two. CPU time is by thread, in
microseconds a turn: what all threads take together bounds the turns a second, as Python runs
in one of them at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.cpu import seconds_by_thread
from bench.engine_load import Sessions, Turns, bulk, intents, quiet_collector, run, tools
from bench.gpu_engine import machine
from ta_fast.encoder.model_folder import minilm_folder, read_model_folder
from ta_fast.encoder.packed import Packed
from ta_fast.encoder.processes import ProcessReadEncoder
from ta_fast.encoder.reading import read
from ta_fast.encoder.tokenizer import TextTokenizer
from ta_fast.engine import Engine, Epoch
from ta_fast.lexicon import Lexicon
from ta_fast.pipeline import Pipeline
from ta_fast.routers import PipelineRouter
from ta_fast.types import F32, U32, TopK
from ta_fast.vocabulary import Vocabulary

SECONDS_A_TURN = 4e-6
TOOLS, INTENTS, ROLES = 2000, 65_536, 64


class Waiting:
    """An encoder and a scorer that only sleep; tokens and vocabulary are MiniLM's."""

    name, dim, max_tokens = "waiting", 384, 1 << 20

    def __init__(self) -> None:
        folder = read_model_folder(minilm_folder())
        self.tokenizer = TextTokenizer(folder.tokenizer, folder.max_length)
        self.vocabulary = Vocabulary.from_pieces(self.tokenizer.pieces())
        self.rows = self.tokenizer.rows

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        """Of no use here."""
        raise NotImplementedError

    @contextmanager
    def on_device(self, tokens: Packed) -> Iterator[int]:
        """Nothing but their number."""
        yield len(tokens)

    def topk(self, queries: F32, allowed: U32, k: int, threshold: F32, terms: Any = None) -> TopK:
        """Of no use here."""
        raise NotImplementedError

    def topk_from(self, turns: int, _allowed: U32, k: int, *_: Any) -> TopK:
        """Any rows, after the time that they take."""
        time.sleep(SECONDS_A_TURN * turns)
        return TopK(np.zeros((turns, k), np.float32), np.zeros((turns, k), np.int32))


def one_by_one(epoch: Epoch, turns: Turns, sessions: int, seconds: float) -> dict[str, Any]:
    """A closed loop of sessions."""
    with Engine() as engine:
        report = run(Sessions(engine, lambda: epoch, turns, sessions).closed(seconds / 2, seconds))
    return told(report.turns, report.rows_of_batch, report.cpu)


def many(epoch: Epoch, turns: Turns, size: int, seconds: float) -> dict[str, Any]:
    """Requests of so many turns."""
    with Engine(len(epoch.routers)) as engine:
        run(bulk(engine, epoch, turns, size, seconds / 4))
        quiet_collector()
        before, cpu = engine.stats, seconds_by_thread()
        rate, _ = run(bulk(engine, epoch, turns, size, seconds))
        after, spent = engine.stats, seconds_by_thread()
    done = after.turns - before.turns
    batches = sum(after.run.counts) - sum(before.run.counts)
    by_thread = {name: 1e6 * (s - cpu.get(name, 0.0)) / done for name, s in spent.items()}
    return told(rate, done / max(1, batches), by_thread)


def told(rate: float, rows: float, cpu: dict[str, float]) -> dict[str, Any]:
    """For JSON; a thread's name without its number, devices together."""
    parts = {"loop": "MainThread", "read": "ta-fast-tokenise", "device": "ta-fast-device"}
    each = {
        part: round(sum(us for name, us in cpu.items() if name.startswith(thread)), 2)
        for part, thread in parts.items()
    }
    return {
        "turns_per_s": round(rate),
        "rows_of_batch": round(rows),
        "cpu_us_per_turn": {**each, "all": round(sum(cpu.values()), 2)},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tokenisers", type=int, default=1, help="processes for each device")
    parser.add_argument("--sessions", type=int, default=4000)
    parser.add_argument("--sizes", default="100,1000,4096", help="turns of a request of many")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each figure")
    parser.add_argument("--switch", type=float, default=0.5, help="interval of threads in ms")
    options = parser.parse_args()
    sys.setswitchinterval(options.switch / 1e3)
    waiting = Waiting()
    lexicon, _ = Lexicon.build(waiting.vocabulary, tools(TOOLS), waiting.rows)
    rng = np.random.default_rng(0)
    turns = Turns(intents(INTENTS, 3), rng.integers(0, 2**32, (ROLES, 2), dtype=np.uint32))
    asked = ("tokenisers", "sessions", "seconds", "switch")
    found: dict[str, Any] = {**machine(), **{name: getattr(options, name) for name in asked}}
    by_processes = [ProcessReadEncoder(waiting, options.tokenisers) for _ in range(2)]
    for kind, words in (("dense", None), ("hybrid", lexicon)):
        here, there = (
            find(turns.texts[:4096], words)
            for find in (partial(read, waiting.rows), by_processes[0].read_texts)
        )
        for ours, theirs in zip(here.fields, there.fields, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for where, encoders in (("here", [waiting] * 2), ("processes", by_processes)):
            pipelines = [Pipeline(encoder, waiting, words) for encoder in encoders]
            routers = tuple(PipelineRouter(each, vectors=False) for each in pipelines)
            one, two = Epoch(routers[:1], 2), Epoch(routers, 2)
            figures = found.setdefault(kind, {})[where] = {
                "one_by_one": one_by_one(one, turns, options.sessions, options.seconds)
            }
            for size in map(int, options.sizes.split(",")):
                figures[f"{size}_on_one"] = many(one, turns, size, options.seconds)
                figures[f"{size}_on_two"] = many(two, turns, size, options.seconds)
            for name, figure in figures.items():
                print(f"{kind:7}{where:10}{name:12}", *figure.values())
            if options.out:
                options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
