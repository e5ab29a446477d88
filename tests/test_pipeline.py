from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from ta_fast import Catalog, Tool
from ta_fast.encoder.batching import TEXTS_AT_ONCE
from ta_fast.encoder.packed import Packed
from ta_fast.pipeline import Pipeline
from ta_fast.scorer import NumpyScorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, U32, Source
from ta_fast.vocabulary import Vocabulary

WORDS = ["", *(f"word{i}" for i in range(23)), *(f"t{i}" for i in range(60))]


class WordEncoder(HashingEncoder):
    """An encoder that shows its tokens: one for each word."""

    vocabulary = Vocabulary.from_pieces(WORDS)

    def rows(self, texts: Sequence[str]) -> list[bytes]:
        if "poison" in texts:
            raise ValueError("poison")
        known = [[WORDS.index(w) for w in text.split() if w in WORDS] for text in texts]
        return [np.array(row, np.int32).tobytes() for row in known]

    def encode_rows(self, rows: Sequence[bytes]) -> F32:
        ids = [np.frombuffer(row, np.int32) for row in rows]
        return self.encode([" ".join(WORDS[i] for i in row) for row in ids])


class DeviceEncoder(WordEncoder):
    """Like an encoder whose vectors stay on a device; it takes so many tokens at once."""

    max_tokens = 100

    @contextmanager
    def on_device(self, tokens: Packed) -> Iterator[F32]:
        assert len(tokens.ids) <= self.max_tokens
        assert tokens.lengths.all()
        yield self.encode_rows(tokens.rows())


class DeviceScorer(NumpyScorer):
    """Like a scorer that reads vectors on a device."""

    topk_from = NumpyScorer.topk


def setup(count: int, ranking: str = "dense") -> tuple[Pipeline, Pipeline, list[str], U32, F32]:
    """A pipeline over host and one over a pretended device, with turns for both."""
    catalog, host, device = Catalog(), WordEncoder(), DeviceEncoder()
    gates = [None, {"all_of": ["scope:a"]}, {"none_of": ["scope:a"]}]
    tools = [Tool(f"t{i}", f"t{i}", f"word{i % 17}", precondition=gates[i % 3]) for i in range(60)]
    catalog.replace([Source("f", tools)])
    catalog.embed(host)
    index = catalog.snapshot(host, ranking)
    states = [index.gate.allowed(frozenset(facts)) for facts in ((), ("scope:a",))]
    texts = [f"word{i % 23} t{i % 60}" for i in range(count)]
    allowed = np.array([states[i % 2] for i in range(count)], dtype=np.uint32).reshape(count, 1)
    threshold = np.linspace(-1, 0.8, count, dtype=np.float32)
    pipelines = (
        Pipeline(host, NumpyScorer(index.matrix), index.lexicon),
        Pipeline(device, DeviceScorer(index.matrix), index.lexicon),
    )
    return *pipelines, texts, allowed, threshold


@pytest.mark.parametrize("ranking", ["dense", "hybrid"])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 3 * TEXTS_AT_ONCE + 7])
def test_device_path_answers_like_the_host_path(count: int, ranking: str) -> None:
    """However many turns and parts, every row stands at its turn."""
    host, device, texts, allowed, threshold = setup(count, ranking)
    assert (host.on_device, device.on_device) == (False, True)
    a = host.route(texts, allowed, 5, threshold)
    b = device.route(texts, allowed, 5, threshold)
    np.testing.assert_array_equal(a.top.rows, b.top.rows)
    np.testing.assert_array_equal(a.top.scores, b.top.scores)
    assert a.queries is not None
    assert a.queries.shape[0] == count


def test_vectors_come_when_they_are_wanted() -> None:
    """Asking for embeddings takes the way over the host."""
    _, device, texts, allowed, threshold = setup(10)
    assert device.route(texts, allowed, 5, threshold).queries is None
    routed = device.route(texts, allowed, 5, threshold, vectors=True)
    assert routed.queries is not None
    np.testing.assert_array_equal(routed.queries, HashingEncoder().encode(texts))
    assert set(routed.seconds) == {"prepare", "encode", "score"}


def test_a_failing_batch_fails_the_call_and_nothing_hangs() -> None:
    """The tokeniser's error in a later batch reaches the caller; the next call works."""
    _, device, texts, allowed, threshold = setup(3 * TEXTS_AT_ONCE)
    bad = [*texts[:-1], "poison"]
    with pytest.raises(ValueError, match="poison"):
        device.route(bad, allowed, 5, threshold)
    assert device.route(texts, allowed, 5, threshold).top.rows.shape == (len(texts), 5)


def test_hybrid_answers_are_those_of_the_reference() -> None:
    """Terms reach the scorer at their turns: a batch's answers are those of single turns."""
    host, device, texts, allowed, threshold = setup(230, "hybrid")
    batch = device.route(texts, allowed, 5, threshold).top
    dense = setup(230)[0].route(texts, allowed, 5, threshold).top
    assert (batch.scores > dense.scores).any()
    for b in range(0, 230, 7):
        alone = host.route(texts[b : b + 1], allowed[b : b + 1], 5, threshold[b : b + 1]).top
        np.testing.assert_array_equal(alone.rows[0], batch.rows[b])
        np.testing.assert_array_equal(alone.scores[0], batch.scores[b])


def test_words_are_counted() -> None:
    """How many words a turn has, and how many of them no tool has; none for dense scores."""
    host, _, texts, allowed, threshold = setup(30, "hybrid")
    routed = host.route(texts, allowed, 5, threshold, vectors=True)
    assert routed.words is not None
    assert routed.words[0].tolist() == [2, 0]
    assert routed.words[20].tolist() == [2, 1]  # word20 is of no tool
    dense, _, *operands = setup(30)
    assert dense.route(operands[0], operands[1], 5, operands[2], vectors=True).words is None


@pytest.mark.parametrize("which", [0, 1])
def test_some_prepared_turns_answer_as_in_their_batch(which: int) -> None:
    """Turns taken out of a prepared batch, in any order, keep their answers."""
    *pipelines, texts, allowed, threshold = setup(50, "hybrid")
    pipeline = pipelines[which]
    batch = pipeline.prepare(texts)
    assert list(batch.lengths) == [2] * 50
    whole = pipeline.run(batch, allowed, 5, threshold)
    places = np.array([7, 3, 49, 3])
    some = pipeline.run(batch.take(places), allowed[places], 5, threshold[places])
    np.testing.assert_array_equal(some.top.rows, whole.top.rows[places])
    np.testing.assert_array_equal(some.top.scores, whole.top.scores[places])
    assert some.words is not None
    assert whole.words is not None
    np.testing.assert_array_equal(some.words, whole.words[places])
