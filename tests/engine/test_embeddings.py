"""Remembered embeddings change no answer, are bounded, and are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ta_fast.encoder import shows_tokens
from ta_fast.engine import Engine, Epoch, RememberingEncoder, Request
from ta_fast.errors import InvalidConfig
from ta_fast.lexicon import Lexicon
from ta_fast.pipeline import Pipeline
from ta_fast.routers import PipelineRouter
from ta_fast.scorer import NumpyScorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, Tool
from ta_fast.vocabulary import ID_BYTES, Vocabulary
from ta_fast_kernels import ToolMatrix
from tests.engine.routers import LIMIT, within

WORDS = [*"abcdefghijklmnopqrstuvwxyz"]


class Counting(HashingEncoder):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None) -> F32:
        self.asked += texts
        return super().encode(texts, progress=progress)


class Tokens(Counting):
    """Shows its tokens: letters."""

    def __init__(self) -> None:
        super().__init__()
        self.vocabulary = Vocabulary.from_pieces(WORDS)

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        return [np.array([WORDS.index(w) for w in t.split()], np.int32).tobytes() for t in texts]

    def encode_rows(self, rows: Sequence[bytes]) -> F32:
        ids = [memoryview(row).cast("i").tolist() for row in rows]
        assert all(
            len(row) == ID_BYTES * len(places) for row, places in zip(rows, ids, strict=True)
        )
        return self.encode([" ".join(WORDS[i] for i in places) for places in ids])


@pytest.mark.parametrize("kind", [Counting, Tokens])
def test_answers_with_hits_are_the_single_ones(kind: type[Counting]) -> None:
    """The same bits, batched through a small memory, as alone without one; dense and hybrid."""
    rng = np.random.default_rng(5)
    names = [" ".join(rng.choice(WORDS, 4)) for _ in range(60)]
    tools = [Tool(f"s__{i}", f"{i}", name, {}, "s") for i, name in enumerate(names)]
    encoder, lexicon, terms = kind(), None, None
    if shows_tokens(encoder):
        lexicon, terms = Lexicon.build(
            encoder.vocabulary,
            tools,
            lambda texts: encoder.rows([t if t in names else "" for t in texts]),
        )
    matrix = ToolMatrix.from_rows(encoder.encode(names), np.zeros(60, np.int32), 1, terms)
    remembering = RememberingEncoder(encoder, 20)
    assert remembering.name == encoder.name
    on = Epoch(
        (PipelineRouter(Pipeline(remembering, NumpyScorer(matrix), lexicon), vectors=False),), 1
    )
    alone = Pipeline(kind(), NumpyScorer(matrix), lexicon)
    allowed, least = np.ones((1, 1), np.uint32), np.full(1, -1, np.float32)
    texts = [names[i] for i in rng.integers(0, 30, 400)]

    async def story() -> None:
        async with Engine() as engine:
            for first in range(0, 400, 50):
                some = texts[first : first + 50]
                asked = (engine.route(Request(on, [t], allowed, 5, least)) for t in some)
                for text, answer in zip(some, await asyncio.gather(*asked), strict=True):
                    expected = alone.route([text], allowed, 5, least).top
                    assert expected.rows.tobytes() == answer.top.rows.tobytes()
                    assert expected.scores.tobytes() == answer.top.scores.tobytes()

    encoder.asked.clear()
    within(LIMIT, story())
    assert remembering.hits + remembering.misses == 400
    assert remembering.hits > 50
    assert len(encoder.asked) <= remembering.misses


def test_the_least_recently_used_goes_first() -> None:
    """What was asked for lately is there; what was not is computed again."""
    inner = Counting()
    encoder = RememberingEncoder(inner, 2)
    for text in ("a", "b", "a", "c", "a", "b"):
        np.testing.assert_array_equal(encoder.encode([text]), HashingEncoder().encode([text]))
    assert inner.asked == ["a", "b", "c", "b"]
    assert (encoder.hits, encoder.misses) == (2, 4)


def test_a_text_twice_in_a_batch_is_computed_once() -> None:
    """Also when the batch is larger than what is kept; and no text gives no vector."""
    inner = Counting()
    encoder = RememberingEncoder(inner, 1)
    found = encoder.encode(["a", "b", "a", "c"])
    np.testing.assert_array_equal(found, HashingEncoder().encode(["a", "b", "a", "c"]))
    assert inner.asked == ["a", "b", "c"]
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_a_catalog_s_tools_are_not_kept() -> None:
    """They are embedded with progress, once, and would push the intents out."""
    inner, done = Counting(), []
    encoder = RememberingEncoder(inner, 5)
    encoder.encode(["a", "b"], progress=done.append)
    encoder.encode(["a"])
    assert inner.asked == ["a", "b", "a"]
    assert done == [2]


def test_vectors_of_a_gpu_come_to_the_host() -> None:
    """The way over the device would never see what is remembered."""
    encoder = Counting()
    encoder.on_device = encoder.pack = None  # type: ignore[attr-defined]
    assert not hasattr(RememberingEncoder(encoder, 5), "on_device")
    assert not hasattr(RememberingEncoder(encoder, 5), "pack")


def test_a_size_is_above_zero() -> None:
    """None at all is the encoder itself."""
    with pytest.raises(InvalidConfig, match="0 remembered"):
        RememberingEncoder(HashingEncoder(), 0)
