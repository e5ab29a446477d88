"""Texts are read by processes as they are read here, whatever happens to the processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import pytest

from ta_fast.encoder import processes
from ta_fast.encoder.processes import LEAST, SHARE, ProcessReadEncoder
from ta_fast.encoder.reading import Read, read
from ta_fast.encoder.tokenizer import TextTokenizer
from ta_fast.encoder.worker import LEXICONS
from ta_fast.engine import Answer, Engine, Epoch, Request
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.lexicon import Lexicon
from ta_fast.pipeline import Pipeline
from ta_fast.routers import PipelineRouter
from ta_fast.scorer import NumpyScorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import Tool
from ta_fast.vocabulary import Vocabulary
from ta_fast_kernels import ToolMatrix
from tests.encoder.tiny_bert import WORDS, write_folder

SAID = [word for word in WORDS if word.isalpha()]
ODD = ["", " ", "\ud800 lone", "Ünïcödé", "文書を読む", "word " * 400, "a\x00b", *SAID]
TEXTS = [f"{ODD[i % len(ODD)]} {SAID[i % 5]} {SAID[i % 3]}" for i in range(3 * SHARE)]


class TextEncoder(HashingEncoder):
    """Shows the tokens of a real tokenizer."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tokenizer = TextTokenizer(write_folder(folder) / "tokenizer.json", 64)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.from_pieces(self.tokenizer.pieces())

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        return self.tokenizer.rows(texts)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """What computes."""
    return TextEncoder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def two(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessReadEncoder]:
    """The same with two processes; dead ones are replaced at once."""
    monkeypatch.setattr(processes, "PAUSE", 0.05)
    made = ProcessReadEncoder(encoder, 2)
    yield made
    made.close()


def tools(shift: int = 0) -> list[Tool]:
    """Tools of another catalog for each shift."""
    names = SAID[shift % 5 :]
    return [Tool(f"t{i}", name, f"{name} {names[i // 2]}") for i, name in enumerate(names)]


def lexicon(encoder: TextEncoder, shift: int = 0) -> Lexicon:
    """Of such tools."""
    return Lexicon.build(encoder.vocabulary, tools(shift), encoder.rows)[0]


def same(found: Read, expected: Read) -> None:
    """Equal in every array."""
    for ours, theirs in zip(found.fields, expected.fields, strict=True):
        assert ours.dtype == theirs.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)
    assert (found.terms is None) == (expected.terms is None)
    if found.terms is not None and expected.terms is not None:
        np.testing.assert_array_equal(found.terms.values, expected.terms.values)


def eventually(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until it holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def lives(process: int) -> bool:
    """Whether there is such a process, a zombie not counted."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, 2 * SHARE + 1, len(TEXTS)])
def test_any_texts_are_read_as_they_are_here(
    encoder: TextEncoder, two: ProcessReadEncoder, size: int
) -> None:
    """Dense and hybrid, in any number, whatever is in them; in one order."""
    for words in (None, lexicon(encoder)):
        same(two.read_texts(TEXTS[:size], words), read(encoder.rows, TEXTS[:size], words))


def test_every_batch_is_read_with_its_own_words(
    encoder: TextEncoder, two: ProcessReadEncoder
) -> None:
    """Of more epochs than a process keeps, in any order."""
    made = [lexicon(encoder, shift) for shift in range(LEXICONS + 3)]
    for place in (*range(LEXICONS + 3), 0, 5, LEXICONS + 2, 1, 5, 0):
        expected = read(encoder.rows, TEXTS, made[place])
        same(two.read_texts(TEXTS, made[place]), expected)


def test_engine_answers_each_turn_as_alone(encoder: TextEncoder, two: ProcessReadEncoder) -> None:
    """Requests of several epochs at once, large ones and single turns: those of no process."""
    alone, epochs, classes = [], [], np.zeros(len(SAID), np.int32)
    for shift in range(3):
        words, rows = Lexicon.build(encoder.vocabulary, tools(shift), encoder.rows)
        vectors = encoder.encode([tool.description for tool in tools(shift)])
        matrix = ToolMatrix.from_rows(vectors, classes[: len(vectors)], 1, rows)
        pipelines = [Pipeline(each, NumpyScorer(matrix), words) for each in (encoder, two)]
        alone.append(pipelines[0])
        epochs.append(Epoch((PipelineRouter(pipelines[1], vectors=False),), 1))
    allowed, least = np.ones((len(TEXTS), 1), np.uint32), np.full(len(TEXTS), -1, np.float32)

    async def ask(engine: Engine, epoch: int, part: slice) -> Answer:
        texts = TEXTS[part]
        return await engine.route(Request(epochs[epoch], texts, allowed[part], 5, least[part]))

    async def story() -> list[Answer]:
        wanted = [(i % 3, slice(0, None)) for i in range(6)]
        wanted += [(i % 3, slice(i, i + 1)) for i in range(200)]
        async with Engine() as engine:
            found = await asyncio.gather(*(ask(engine, *each) for each in wanted))
        for (epoch, part), answer in zip(wanted, found, strict=True):
            for b in range(0, answer.last - answer.first, 37):
                turn = slice(part.start + b, part.start + b + 1)
                top = alone[epoch].route(TEXTS[turn], allowed[turn], 5, least[turn]).top
                np.testing.assert_array_equal(answer.top.rows[b], top.rows[0])
                np.testing.assert_array_equal(answer.top.scores[b], top.scores[0])
        return found

    assert len(asyncio.run(asyncio.wait_for(story(), 30))) == 206


def test_a_killed_process_is_replaced(encoder: TextEncoder, two: ProcessReadEncoder) -> None:
    """Its share is read here; nobody waits for it."""
    words, old = lexicon(encoder), two.processes
    expected = read(encoder.rows, TEXTS, words)
    for process in old:
        os.kill(process, signal.SIGKILL)
    same(two.read_texts(TEXTS, words), expected)
    eventually(lambda: len(two.processes) == 2)
    assert not set(two.processes) & set(old)
    assert not any(map(lives, old))
    same(two.read_texts(TEXTS, words), expected)
    assert len(two.processes) == 2


def test_a_process_that_hangs_is_replaced(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while it is taken for dead."""
    monkeypatch.setattr(processes, "PATIENCE", 1)
    monkeypatch.setattr(processes, "PAUSE", 0.05)
    one = ProcessReadEncoder(encoder, 1)
    (old,) = one.processes
    os.kill(old, signal.SIGSTOP)
    same(one.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))
    eventually(lambda: len(one.processes) == 1)
    assert not lives(old)
    same(one.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))
    one.close()


def test_a_text_that_cannot_be_read_fails_its_batch_alone(
    encoder: TextEncoder, two: ProcessReadEncoder
) -> None:
    """As it would here; the processes stay."""
    old, bad = two.processes, [*TEXTS[:-1], 5]
    with pytest.raises(TypeError):
        two.read_texts(bad, None)  # type: ignore[arg-type]
    same(two.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))
    assert two.processes == old


def test_an_answer_to_another_task_is_not_taken(
    encoder: TextEncoder, two: ProcessReadEncoder
) -> None:
    """An interrupt between task and answer leaves one behind."""
    for worker in two._workers:
        assert worker
        worker.ask(TEXTS[::-1], None)
    same(two.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))


def test_signals_to_the_group_leave_the_processes(
    encoder: TextEncoder, two: ProcessReadEncoder
) -> None:
    """They are needed until accepted turns are answered."""
    old = two.processes
    for number in (signal.SIGINT, signal.SIGTERM):
        for process in old:
            os.kill(process, number)
    same(two.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))
    assert two.processes == old


def test_no_process_is_left(encoder: TextEncoder) -> None:
    """Closed, or not wanted any more; what comes then is read here."""
    closed, forgotten = ProcessReadEncoder(encoder, 1), ProcessReadEncoder(encoder, 1)
    started = closed.processes + forgotten.processes
    assert all(map(lives, started))
    closed.close()
    assert closed.processes == []
    same(closed.read_texts(TEXTS, None), read(encoder.rows, TEXTS, None))
    del forgotten
    gc.collect()
    assert not any(map(lives, started))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, None])
def test_processes_end_with_their_parent(tmp_path: Path, ending: signal.Signals | None) -> None:
    """Killed, told to end, or at its own end."""
    code = (
        "import sys, time, pathlib\n"
        "from ta_fast.encoder.processes import ProcessReadEncoder\n"
        "from tests.encoder.test_processes import TextEncoder\n"
        "made = ProcessReadEncoder(TextEncoder(pathlib.Path(sys.argv[1])), 2)\n"
        "print(*made.processes, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout
    assert parent.stdin
    with parent:
        started = [int(process) for process in parent.stdout.readline().split()]
        assert len(started) == 2
        assert all(map(lives, started))
        if ending:
            parent.send_signal(ending)
        else:
            parent.stdin.close()
        assert parent.wait(20) == (-ending if ending else 0)
        eventually(lambda: not any(map(lives, started)))


def test_a_process_imports_little(two: ProcessReadEncoder) -> None:
    """It starts fast, and where much of what the package needs is not installed."""
    for process in two.processes:
        mapped = Path(f"/proc/{process}/maps").read_text()
        assert "tokenizers" in mapped
        for name in ("torch", "onnxruntime", "jsonschema_rs", "Stemmer", "tiktoken"):
            assert f"/{name}" not in mapped


def test_who_cannot_be_read_for(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said, also when a process does not start."""
    with pytest.raises(InvalidConfig, match="0 processes that read texts; expected 1 or more"):
        ProcessReadEncoder(encoder, 0)
    with pytest.raises(InvalidConfig, match=r"2 processes .* encoder hashing-64"):
        ProcessReadEncoder(HashingEncoder(), 2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendUnavailable, match="a process that reads texts"):
        ProcessReadEncoder(encoder, 2)
