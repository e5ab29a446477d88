"""Texts read by processes of their own: the interpreter's lock is left to everything else."""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from threading import Lock, Thread
from time import sleep
from typing import Any

import numpy as np

from ta_fast.encoder import Encoder, shows_tokens
from ta_fast.encoder.reading import Fields, Read, read
from ta_fast.encoder.tokenizer import TextTokenizer
from ta_fast.encoder.worker import HEAD, LEXICONS, READY, exactly, message
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.lexicon import Lexicon

LEAST = 64
"""Texts of a batch that are worth the way to a process; fewer are read here."""
SHARE = 256
"""Texts for each process at least, where several read a batch."""
PATIENCE = 5
"""Seconds after which a process that does not answer is taken for dead."""
START = 60
"""Seconds in which it must start."""
PAUSE = 1.0
"""Seconds before a new process takes the place of a dead one: it might die at once again."""
_NUMBERS = count()
# Signals go to a whole group, but this process is needed until the other one has drained; that
# it has ended is seen by the socket. The package's __init__ would import much else.
_PROGRAM = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path[:] = {path!r}
package = types.ModuleType("ta_fast")
package.__path__ = {package!r}
sys.modules["ta_fast"] = package
from ta_fast.encoder.tokenizer import TextTokenizer
from ta_fast.encoder.worker import work
work({file})
"""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")

logger = logging.getLogger("ta_fast.encoder")


class ProcessReadEncoder:
    """An encoder whose texts are read, into tokens and terms, by processes of their own.

    It has what the encoder within has, and the same name: no answer changes. Small batches are
    read here, and so is the share of a process that dies, which is replaced. The processes end
    with this object, or when this process does, however it ends.

    Args:
        encoder: One of a model's folder: it has a ``tokenizer``.
        processes: How many.

    Raises:
        InvalidConfig: processes is below 1, or the encoder has no such tokenizer.
        BackendUnavailable: a process did not start.
    """

    def __init__(self, encoder: Encoder, processes: int) -> None:
        if processes < 1:
            raise InvalidConfig(f"{processes} processes that read texts; expected 1 or more")
        tokenizer = getattr(encoder, "tokenizer", None)
        if not (isinstance(tokenizer, TextTokenizer) and shows_tokens(encoder)):
            raise InvalidConfig(
                f"{processes} processes that read texts for encoder {encoder.name}; expected one "
                "that computes by itself, without 'st:'"
            )
        self._encoder: Any = encoder
        self._first = message(tokenizer, encoder.vocabulary)
        self._lock = Lock()
        self._workers: list[_Worker | None] = [None] * processes
        self.close = weakref.finalize(self, _end, self._workers)
        with ThreadPoolExecutor(processes) as threads:
            starting = [threads.submit(_Worker, self._first) for _ in range(processes)]
        self._workers[:] = [each.result() for each in starting if not each.exception()]
        for each in starting:
            if error := each.exception():
                self.close()
                raise BackendUnavailable(f"a process that reads texts: {error!r}") from error

    def __getattr__(self, name: str) -> Any:
        if name == "_encoder":
            raise AttributeError(name)
        return getattr(self._encoder, name)

    @property
    def processes(self) -> list[int]:
        """Ids of those that are at work."""
        return [worker.process.pid for worker in self._workers if worker]

    def read_texts(self, texts: Sequence[str], lexicon: Lexicon | None) -> Read:
        """See `ta_fast.encoder.reading.read`."""
        with self._lock:
            workers = [worker for worker in self._workers if worker]
            workers = workers[: max(1, len(texts) // SHARE)]
            if not workers or len(texts) < LEAST:
                return read(self._encoder.rows, texts, lexicon)
            shares = _shares(texts, len(workers))
            asked = [self._ask(*each, lexicon) for each in zip(workers, shares, strict=True)]
            # All have answered before anything may raise: nobody gets another batch's answer.
            found = [self._answer(worker) if worker else None for worker in asked]
        parts = [
            part or read(self._encoder.rows, share, lexicon).fields
            for part, share in zip(found, shares, strict=True)
        ]
        return Read.of_fields(_joined(parts), hybrid=lexicon is not None)

    def _ask(
        self, worker: _Worker, texts: Sequence[str], lexicon: Lexicon | None
    ) -> _Worker | None:
        try:
            worker.ask(texts, lexicon)
        except OSError as error:
            self._lost(worker, error)
            return None
        return worker

    def _answer(self, worker: _Worker) -> Fields | None:
        try:
            return worker.answer()
        except OSError as error:
            self._lost(worker, error)
            return None

    def _lost(self, worker: _Worker, error: OSError) -> None:
        if worker not in self._workers:
            return  # closed
        place = self._workers.index(worker)
        self._workers[place] = None
        logger.warning("process %d, which reads texts, broke: %r", worker.process.pid, error)
        worker.process.kill()  # it may hang
        worker.end()
        Thread(target=_replace, args=(weakref.ref(self), place), daemon=True).start()


class _Worker:
    """A process and the socket to it."""

    def __init__(self, first: bytes) -> None:
        self._tasks = 0
        self._lexicons: dict[Lexicon, int] = {}  # that it has, by number; the oldest first
        self._socket, there = socket.socketpair()
        with there:
            self.process = _begin(there.fileno())
        try:
            self._wait_at_most(START)
            self._socket.sendall(first)
            exactly(self._socket, len(READY))
            self._wait_at_most(PATIENCE)
        except OSError:
            self.end()
            raise

    def _wait_at_most(self, seconds: int) -> None:
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):  # Python's own timeout would poll
            self._socket.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", seconds, 0))

    def ask(self, texts: Sequence[str], lexicon: Lexicon | None) -> None:
        """Send texts, and the lexicon where it is new there."""
        self._tasks += 1
        if lexicon is None:
            self._socket.sendall(message(None, None, texts))
        elif lexicon in self._lexicons:
            self._socket.sendall(message(self._lexicons[lexicon], None, texts))
        else:
            if len(self._lexicons) == LEXICONS:
                del self._lexicons[next(iter(self._lexicons))]
            self._lexicons[lexicon] = next(_NUMBERS)
            self._socket.sendall(message(self._lexicons[lexicon], lexicon.keys, texts))

    def answer(self) -> Fields | None:
        """What was read; None if it raised there."""
        task, *sizes = HEAD.unpack(exactly(self._socket, HEAD.size))
        if task != self._tasks:  # an exception came between an earlier one and its answer
            raise ConnectionError(f"answer {task} to task {self._tasks}")
        if not any(sizes):
            return None
        ints = np.frombuffer(exactly(self._socket, 4 * sum(sizes)), np.int32)
        ends = np.cumsum(sizes).tolist()
        return [ints[end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def hang_up(self) -> None:
        """It ends by itself, unless it hangs."""
        self._socket.close()

    def end(self) -> None:
        """See that it ends."""
        self.hang_up()
        try:
            self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _begin(file: int) -> subprocess.Popen[bytes]:
    package = list(sys.modules["ta_fast"].__path__)
    program = _PROGRAM.format(path=sys.path, package=package, file=file)
    return subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", program],
        pass_fds=(file,),
        stdin=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD},
    )


def _replace(encoder: weakref.ref[ProcessReadEncoder], place: int) -> None:
    """Let another process take a place, if the encoder is still wanted."""
    while (wanted := encoder()) and wanted.close.alive:
        first = wanted._first
        del wanted
        sleep(PAUSE)
        try:
            worker = _Worker(first)
        except OSError as error:
            logger.warning("a process that reads texts did not start: %r", error)
            continue
        wanted = encoder()
        if wanted:
            wanted._workers[place] = worker
        if not (wanted and wanted.close.alive):
            worker.end()
        return


def _end(workers: list[_Worker | None]) -> None:
    ended, workers[:] = [worker for worker in workers if worker], [None] * len(workers)
    for worker in ended:
        worker.hang_up()
    for worker in ended:
        worker.end()


def _shares(texts: Sequence[str], parts: int) -> list[Sequence[str]]:
    """The texts in so many parts of like size, in order."""
    ends = [len(texts) * part // parts for part in range(parts + 1)]
    return [texts[begin:end] for begin, end in pairwise(ends)]


def _joined(parts: Sequence[Fields]) -> Fields:
    if len(parts) == 1:
        return parts[0]
    # As bytes: NumPy would let go of the interpreter's lock, and wait for it, for each field.
    fields = zip(*parts, strict=True)
    return [np.frombuffer(b"".join(field), np.int32) for field in fields]
