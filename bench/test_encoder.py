"""The default encoder's speed: one text, its parts, and many texts; correctness first."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.common import default_encoder, ratio
from ta_fast.encoder import make_encoder
from ta_fast.encoder.onnx_encoder import OnnxEncoder

# 14 and 40 tokens.
SHORT = "close the stale issues in my repo and tell the channel"
LONG = (
    "find the open pull requests that touch the billing service, check which ones have failing "
    "tests since Monday, and write a short summary of the likely causes into the incident channel "
    "for the people on call"
)
MOST_OF_MINILM = 1.1
MANY = [f"tool_{i}: " + " ".join(LONG.split()[: 4 + i % 30]) for i in range(256)]


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    """The default encoder, after its vectors have been checked."""
    encoder = default_encoder()
    vectors = encoder.encode(MANY)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode([text]) for text in MANY[::16]])
    assert np.einsum("bd,bd->b", alone, vectors[::16]).min() > 1 - 1e-5
    return encoder


@pytest.mark.parametrize("text", [SHORT, LONG], ids=["14-tokens", "40-tokens"])
def test_encode_one(benchmark: BenchmarkFixture, encoder: OnnxEncoder, text: str) -> None:
    """One text to its vector, as a turn does it."""
    assert benchmark(encoder.encode, [text]).shape == (1, encoder.dim)


def test_tokenize_one(benchmark: BenchmarkFixture, encoder: OnnxEncoder) -> None:
    """The part before the forward: text to ids."""
    assert benchmark(encoder.tokenize, [SHORT]).ids.shape == (1, 14)


def test_forward_one(benchmark: BenchmarkFixture, encoder: OnnxEncoder) -> None:
    """The encoder's own forward, which a turn's cost is compared with."""
    assert benchmark(encoder.forward, encoder.tokenize([SHORT])).shape == (1, encoder.dim)


def test_encode_many(benchmark: BenchmarkFixture, encoder: OnnxEncoder) -> None:
    """256 texts of mixed length, as an ingest does it."""
    vectors = benchmark.pedantic(encoder.encode, args=(MANY,), rounds=4)
    assert vectors.shape == (256, encoder.dim)


def test_training_costs_nothing(benchmark: BenchmarkFixture, encoder: OnnxEncoder) -> None:
    """The trained default takes the time of the original, alone and in a batch."""
    minilm = make_encoder("minilm")
    assert minilm.name != encoder.name
    assert minilm.encode([SHORT]).shape == benchmark(encoder.encode, [SHORT]).shape
    if benchmark.enabled:
        for texts, rounds in (([SHORT], 200), (MANY, 6)):
            found = ratio(lambda: encoder.encode(texts), lambda: minilm.encode(texts), rounds)  # noqa: B023
            benchmark.extra_info[f"ratio to minilm, {len(texts)}"] = round(found, 3)
            assert found <= MOST_OF_MINILM


def test_load(benchmark: BenchmarkFixture, encoder: OnnxEncoder) -> None:
    """From nothing to an encoder that answers, and the same one as before."""
    assert benchmark.pedantic(make_encoder, rounds=3).name == encoder.name
