"""A process that reads texts for another one, until that ends.

Messages are a length and a pickle. The first is the tokenizer and its vocabulary; each other one
is a task: a lexicon's number (None for dense scores), the lexicon's words where the worker has
not seen it, and texts. An answer is the task's place among all, the sizes of the fields, and the
fields.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from contextlib import suppress
from socket import MSG_WAITALL, socket
from typing import Any

from ta_fast.encoder.reading import FIELDS, NOTHING, Fields, read
from ta_fast.encoder.tokenizer import TextTokenizer
from ta_fast.lexicon import Lexicon
from ta_fast.vocabulary import U64, Vocabulary

LEXICONS = 8
"""That a worker keeps; both sides forget the oldest."""
READY = b"\0"
HEAD = struct.Struct(f"<{1 + FIELDS}q")
_LENGTH = struct.Struct("<q")


def work(file: int) -> None:
    """Answer what comes through a socket until its other end is closed."""
    with socket(fileno=file) as there, suppress(ConnectionError):
        reader = Reader(*receive(there))
        there.sendall(READY)
        while True:
            there.sendall(reader.answer(*receive(there)))


class Reader:
    """Reads with the lexicons that it was given."""

    def __init__(self, tokenizer: TextTokenizer, vocabulary: Vocabulary) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        self._lexicons: dict[int | None, Lexicon | None] = {None: None}
        self._tasks = 0

    def answer(self, number: int | None, words: U64 | None, texts: Sequence[str]) -> bytes:
        """What was read as bytes; if it raises, no field has anything."""
        self._tasks += 1
        if words is not None:
            if len(self._lexicons) > LEXICONS:
                del self._lexicons[next(n for n in self._lexicons if n is not None)]
            self._lexicons[number] = Lexicon.of_words(self._vocabulary, words)
        try:
            fields: Fields = read(self._tokenizer.rows, texts, self._lexicons[number]).fields
        except Exception:  # read again there, it is raised where its turn is looked for
            fields = (NOTHING,) * FIELDS
        head = HEAD.pack(self._tasks, *map(len, fields))
        return b"".join([head, *(field.tobytes() for field in fields)])


def message(*value: Any) -> bytes:
    """What `receive` reads."""
    body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def receive(there: socket) -> Any:
    """The next message; raises as ``exactly``."""
    (size,) = _LENGTH.unpack(exactly(there, _LENGTH.size))
    return pickle.loads(exactly(there, size))  # noqa: S301 - from the process that began this


def exactly(there: socket, size: int) -> bytearray:
    """So many bytes.

    Raises:
        ConnectionError: the other end is closed.
        BlockingIOError: they did not come in the socket's time.
    """
    found = bytearray(size)
    view, got = memoryview(found), 0
    while got < size:
        # In one call: whoever comes back from one waits for the interpreter's lock.
        more = there.recv_into(view[got:], size - got, MSG_WAITALL)
        if not more:
            raise ConnectionResetError("the other end is closed")
        got += more
    return found
