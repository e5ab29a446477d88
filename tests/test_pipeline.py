from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from ta_fast import Catalog, Tool
from ta_fast.encoder.batching import TEXTS_AT_ONCE
from ta_fast.pipeline import Pipeline
from ta_fast.scorer import make_scorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, U32, Source, TopK


@dataclass
class Tokens:
    texts: Sequence[str]

    def split(self, max_tokens: int) -> Iterator[tuple[slice, "Tokens"]]:
        for i in range(0, len(self.texts), max_tokens):
            part = self.texts[i : i + max_tokens]
            yield slice(i, i + len(part)), Tokens(part)


class DeviceEncoder(HashingEncoder):
    """Like an encoder whose vectors stay on a device; a token a text."""

    max_tokens = 100

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        if "poison" in texts:
            raise ValueError("poison")
        return Tokens(texts)

    @contextmanager
    def on_device(self, tokens: Tokens) -> Iterator[F32]:
        assert len(tokens.texts) <= self.max_tokens
        yield self.encode(tokens.texts)


def setup(count: int) -> tuple[Pipeline, Pipeline, list[str], U32, F32]:
    """A pipeline over host and one over a pretended device, with turns for both."""
    encoder = DeviceEncoder()
    catalog = Catalog()
    gates = [None, {"all_of": ["scope:a"]}, {"none_of": ["scope:a"]}]
    tools = [Tool(f"t{i}", f"t{i}", f"word{i % 17}", precondition=gates[i % 3]) for i in range(60)]
    catalog.replace([Source("f", tools)])
    catalog.embed(encoder)
    index = catalog.snapshot(encoder)
    scorer = make_scorer("numpy", index.matrix)

    class DeviceScorer:
        topk = scorer.topk

        def topk_from(self, vectors: F32, allowed: U32, k: int, threshold: F32) -> TopK:
            return scorer.topk(vectors, allowed, k, threshold)

    states = [index.gate.allowed(frozenset(facts)) for facts in ((), ("scope:a",))]
    texts = [f"word{i % 23} t{i % 60}" for i in range(count)]
    allowed = np.array([states[i % 2] for i in range(count)], dtype=np.uint32)
    threshold = np.linspace(-1, 0.8, count, dtype=np.float32)
    host = Pipeline(HashingEncoder(), scorer)
    return host, Pipeline(encoder, DeviceScorer()), texts, allowed, threshold


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 3 * TEXTS_AT_ONCE + 7])
def test_device_path_answers_like_the_host_path(count: int) -> None:
    """However many turns and parts, every row stands at its turn."""
    host, device, texts, allowed, threshold = setup(count)
    assert (host.on_device, device.on_device) == (False, True)
    allowed = allowed.reshape(count, 1)
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
    assert set(routed.seconds) == {"encode", "score"}


def test_a_failing_batch_fails_the_call_and_nothing_hangs() -> None:
    """The tokeniser's error in a later batch reaches the caller; the next call works."""
    _, device, texts, allowed, threshold = setup(3 * TEXTS_AT_ONCE)
    bad = [*texts[:-1], "poison"]
    with pytest.raises(ValueError, match="poison"):
        device.route(bad, allowed, 5, threshold)
    assert device.route(texts, allowed, 5, threshold).top.rows.shape == (len(texts), 5)
