"""The default encoder: vectors that depend on the text alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ta_fast.encoder import make_encoder, model_folder
from ta_fast.encoder.onnx_encoder import OnnxEncoder
from ta_fast.encoder.tokenizer import CHARACTERS_PER_TOKEN
from ta_fast.errors import BackendUnavailable


@pytest.fixture(scope="module")
def minilm() -> OnnxEncoder:
    """The default encoder; skips where its weights are neither installed nor cached."""
    try:
        encoder = make_encoder("minilm")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    assert isinstance(encoder, OnnxEncoder)
    return encoder


def test_default_encoder(minilm: OnnxEncoder) -> None:
    """The default is all-MiniLM-L6-v2: 384 dimensions, 256 tokens, unit rows."""
    vectors = minilm.encode(["list files", "", "天気 🌧️", "x" * 10_000])
    assert minilm.name.startswith("minilm:")
    assert (minilm.dim, minilm.max_length) == (384, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts(minilm: OnnxEncoder) -> None:
    """No texts give no vectors, of the right shape."""
    assert minilm.encode([]).shape == (0, 384)
    assert minilm.forward(minilm.tokenize([])).shape == (0, 384)


def test_related_texts_are_closer(minilm: OnnxEncoder) -> None:
    """Each intent is nearer to the tool that serves it than any unrelated pair is."""
    intents = minilm.encode(
        ["what is the weather in Oslo tomorrow", "merge my pull request", "email the report to Ana"]
    )
    tools = minilm.encode(
        [
            "get_forecast: forecast for a city",
            "merge_pr: merge a pull request",
            "send_mail: send an email",
        ]
    )
    scores = intents @ tools.T
    others = scores[~np.eye(3, dtype=bool)]
    assert scores.diagonal().min() > others.max()


@settings(max_examples=30, deadline=None)
@given(companions=st.lists(st.text(max_size=600), min_size=1, max_size=6), at=st.integers(0, 6))
def test_vector_does_not_depend_on_companions(
    minilm: OnnxEncoder, companions: list[str], at: int
) -> None:
    """A text has one vector, whatever it is batched with."""
    text = "close the stale issues and tell the channel"
    batch = [*companions[:at], text, *companions[at:]]
    row = min(at, len(companions))
    together = minilm.forward(minilm.tokenize(batch))[row]
    assert minilm.encode([text])[0] @ together > 1 - 1e-5
    assert minilm.encode(batch)[row] @ together > 1 - 1e-5


@pytest.fixture(scope="module")
def own(minilm: OnnxEncoder) -> Tokenizer:
    """The model's tokenizer as its library reads it."""
    tokenizer = Tokenizer.from_file(str(model_folder.minilm_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(minilm.max_length)
    return tokenizer


ASCII = st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=80)
WORDS = st.lists(
    st.sampled_from(
        ["don't", "[SEP]", "[CLS]x", "snake_case", "a" * 70, "b" * 120, "3.14", "##ing", "é"]
    )
    | ASCII
).map(" ".join)


@given(texts=st.lists(WORDS | st.text() | WORDS.map(lambda text: text * 40), max_size=4))
@settings(max_examples=500)
def test_tokens_are_the_models_own(minilm: OnnxEncoder, own: Tokenizer, texts: list[str]) -> None:
    """The short way for plain texts gives the tokenizer's own ids, truncation included."""
    tokens, read = minilm.tokenize(texts), minilm.max_length * CHARACTERS_PER_TOKEN
    for text, ids, mask in zip(texts, tokens.ids, tokens.mask, strict=True):
        assert ids[: mask.sum()].tolist() == own.encode(text[:read]).ids


def test_many_texts_keep_their_order(minilm: OnnxEncoder) -> None:
    """Sorting by length and batching inside are not seen, and progress adds up."""
    texts = [f"tool number {i} " + "reads a file " * (i % 7) for i in range(150)]
    done: list[int] = []
    vectors = minilm.encode(texts, progress=done.append)
    single = np.concatenate([minilm.encode([text]) for text in texts[::10]])
    assert np.einsum("bd,bd->b", vectors[::10], single).min() > 1 - 1e-5
    assert sum(done) == len(texts)
    assert len(done) > 1


def test_long_text_is_its_prefix(minilm: OnnxEncoder) -> None:
    """Truncation keeps the first 256 tokens, and a megabyte costs no more than its start."""
    prefix = "data " * 254  # and two special tokens
    vectors = minilm.encode([prefix, prefix + "secret " * 150_000, prefix + "other"])
    assert minilm.tokenize([prefix + "other"]).ids.shape == (1, 256)
    np.testing.assert_allclose(vectors @ vectors[0], 1, atol=1e-6)
    limit = 256 * CHARACTERS_PER_TOKEN
    assert not minilm.tokenize([" " * limit + "beyond"]).ids[0, 2:].any()


def test_any_str_is_encoded(minilm: OnnxEncoder) -> None:
    """Lone surrogates, which no UTF-8 holds, count as the replacement character."""
    broken, replaced = minilm.encode(["list \ud800 files \udfff", "list \ufffd files \ufffd"])
    assert broken @ replaced == pytest.approx(1)


def test_threads_agree(minilm: OnnxEncoder) -> None:
    """Concurrent calls give each its own texts' vectors."""
    texts = [f"find file {i} " * (1 + i % 5) for i in range(48)]
    expected = minilm.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        got = np.concatenate(list(pool.map(lambda text: minilm.encode([text]), texts)))
    assert np.einsum("bd,bd->b", got, expected).min() > 1 - 1e-5


def test_sentence_transformer_agrees(minilm: OnnxEncoder) -> None:
    """The ONNX encoder gives what sentence-transformers gives for the same weights."""
    if find_spec("sentence_transformers") is None:
        pytest.skip("sentence-transformers is not installed (the extra [st])")
    reference = make_encoder(f"st:{model_folder.minilm_folder()}")
    texts = ["", "list files", "merge the pull request \ud800", "天気を教えて", "data " * 400]
    done: list[int] = []
    expected = reference.encode(texts, progress=done.append)
    assert reference.dim == 384
    assert reference.encode([]).shape == (0, 384)
    assert sum(done) == len(texts)
    assert np.einsum("bd,bd->b", minilm.encode(texts), expected).min() > 0.9999
