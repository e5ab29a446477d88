"""The GPU encoder: its kernels against NumPy, interpreted where there is no GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ta_fast import Catalog, Tool
from ta_fast.encoder import make_encoder
from ta_fast.encoder.model_folder import read_model_folder
from ta_fast.encoder.packed import Packed
from ta_fast.encoder.tokenizer import as_row
from ta_fast.errors import BackendUnavailable, InvalidConfig
from ta_fast.types import Source
from tests.encoder.tiny_bert import (
    CONFIG,
    WORDS,
    numpy_bert,
    random_bert,
    unit,
    write_bert,
    write_folder,
    write_pooling,
)

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("triton", reason="triton is not installed")
from triton import knobs  # noqa: E402

from ta_fast.encoder import batching, gpu_encoder, triton_bert  # noqa: E402
from ta_fast.pipeline import Pipeline  # noqa: E402
from ta_fast.scorer.triton_scorer import TritonScorer  # noqa: E402
from ta_fast_kernels import ToolMatrix  # noqa: E402
from tests.triton_interpreter import mend_interpreter  # noqa: E402

INTERPRETED = bool(knobs.runtime.interpret)
DEVICES = [
    pytest.param(
        "cpu",
        marks=pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1"),
    ),
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(
                INTERPRETED or not torch.cuda.is_available(),
                reason="needs a CUDA device, and TRITON_INTERPRET unset",
            ),
        ],
    ),
]
BERT = {
    **CONFIG,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "intermediate_size": 80,
    "max_position_embeddings": 200,
}
TEXTS = ["", "list", "open the pull requests", "a unknown list", "the " * 40, "the list " * 40]
ALONE = [[length] for length in (1, 2, 15, 16, 17, 64, 65, 128, 129, 200)]
# Least cosine to float64, at this random model: a half's rounding is larger than in a real one.
COSINE = {"float32": 1 - 1e-9, "float16": 0.9995, "bfloat16": 0.98}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Where the kernels run."""
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the random BERT of the shape above."""
    return write_gpu_bert(tmp_path)


def write_gpu_bert(path: Path) -> Path:
    """Write the random BERT of a shape that the kernels are for."""
    write_folder(path, **BERT)
    save_file(random_bert(BERT), path / "model.safetensors")
    return path


def packed(ids: list[list[int]]) -> Packed:
    """Token ids as the encoder takes them."""
    return Packed.of_rows([as_row(row) for row in ids]).filled()


def encoder(folder: Path, device: str, **options: Any) -> gpu_encoder.GpuEncoder:
    """The encoder under test, its memory small and poisoned."""
    made = gpu_encoder.GpuEncoder(
        read_model_folder(folder), device=device, **{"max_tokens": 512, **options}
    )
    made._output.fill_(float("nan"))
    return made


def random_ids(lengths: list[int]) -> list[list[int]]:
    """Random token ids of texts of the given lengths."""
    rng = np.random.default_rng(len(lengths))
    return [rng.integers(0, len(WORDS), length).tolist() for length in lengths]


def expected(ids: list[list[int]], pooling: str = "mean") -> np.ndarray:
    """Unit vectors by the plain forward in float64."""
    weights = random_bert(BERT)
    hidden = [numpy_bert(weights, row, BERT) for row in ids]
    return unit(np.stack([x.mean(0) if pooling == "mean" else x[0] for x in hidden]))


@pytest.mark.parametrize(
    "lengths",
    [*ALONE, [1, 2, 15, 16, 17, 64], [3] * 9, [1] * 33, [96, 1, 33]],
    ids=str,
)
def test_lengths_equal_numpy_forward(folder: Path, device: str, lengths: list[int]) -> None:
    """Packed texts of any lengths give the vectors of the plain forward in float64."""
    ids = random_ids(lengths)
    got = encoder(folder, device, dtype="float32").forward(packed(ids))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected(ids), atol=2e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(folder: Path, device: str, dtype: str, pooling: str) -> None:
    """Half precision with float32 sums stays near the plain forward, both poolings."""
    if INTERPRETED and dtype == "bfloat16":
        pytest.skip("Triton's interpreter multiplies bfloat16 wrongly")
    write_pooling(folder, pooling_mode=pooling)
    ids = random_ids([1, 7, 16, 30, 64])
    got = encoder(folder, device, dtype=dtype).forward(packed(ids))
    cosines = (unit(got) * expected(ids, pooling)).sum(1)
    assert cosines.min() > COSINE[dtype]
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def test_texts_equal_the_cpu_encoder(folder: Path, device: str) -> None:
    """Texts, also empty and too long, in several batches, give the CPU encoder's vectors."""
    seen: list[int] = []
    got = encoder(folder, device, dtype="float32", max_tokens=208).encode(
        TEXTS * 4, progress=seen.append
    )
    np.testing.assert_allclose(got, make_encoder(str(folder)).encode(TEXTS * 4), atol=2e-5)
    assert sum(seen) == 4 * len(TEXTS)
    assert len(seen) > 1


def test_parts_of_many_texts(folder: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that are tokenised in parts come back in their order."""
    made = encoder(folder, device)
    expected_rows = made.encode(TEXTS)
    monkeypatch.setattr(batching, "TEXTS_AT_ONCE", 2)
    cosines = (made.encode(TEXTS[:5]) * expected_rows[:5]).sum(1)
    assert cosines.min() > 1 - 1e-3


def test_vector_does_not_depend_on_companions(folder: Path, device: str) -> None:
    """A text has one vector, alone, beside others, and in memory that others have used."""
    made = encoder(folder, device)
    together = made.encode(TEXTS)
    alone = np.concatenate([made.encode([text]) for text in reversed(TEXTS)])[::-1]
    again = made.encode(TEXTS)  # on a GPU, replayed
    np.testing.assert_array_equal(together, again)
    assert (together * alone).sum(1).min() > 1 - 1e-3


def test_vectors_left_on_the_device(folder: Path, device: str) -> None:
    """The vectors that stay on the device are those that come back, as float32 there."""
    made = encoder(folder, device)
    tokens = made.tokenize(TEXTS)
    plain = made.forward(tokens)
    with made.on_device(tokens) as kept:
        assert (kept.device.type, kept.dtype) == (device, torch.float32)
        np.testing.assert_array_equal(kept.cpu().numpy(), plain)


def test_no_texts(folder: Path, device: str) -> None:
    """No texts give no vectors, of the right shape."""
    made = encoder(folder, device)
    assert made.encode([]).shape == (0, 48)
    assert made.forward(made.tokenize([])).shape == (0, 48)


def test_too_many_tokens(folder: Path, device: str) -> None:
    """A batch that the working memory cannot hold is refused; a text of any length fits."""
    made = encoder(folder, device, max_tokens=96)
    with pytest.raises(ValueError, match="209 tokens; expected at most 208"):
        made.forward(packed(random_ids([200, 9])))


@pytest.mark.parametrize(
    ("rows", "inner", "columns"),
    [(1, 16, 16), (16, 144, 48), (17, 96, 80), (100, 64, 128), (129, 80, 32), (4133, 64, 256)],
)
@pytest.mark.parametrize("gelu", [False, True])
def test_linear_of_every_tile(device: str, rows: int, inner: int, columns: int, gelu: bool) -> None:
    """The product, bias and GELU are right for each tile, and for cuBLAS beyond them."""
    draw = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(shape, generator=draw).half()
        for shape in ((rows, inner), (columns, inner), (columns,))
    )
    out = torch.full((rows, columns), float("nan"), dtype=torch.float16, device=device)
    triton_bert.linear(*(t.to(device) for t in (x, weight, bias)), out, gelu=gelu)
    want = x.double() @ weight.double().T + bias.double()
    want = torch.nn.functional.gelu(want) if gelu else want
    torch.testing.assert_close(out.cpu().double(), want, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"hidden_size": 40}, "hidden_size 40"),
        ({"num_attention_heads": 6}, "6 heads"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
    ],
)
def test_model_that_cannot_be_run(
    tmp_path: Path, device: str, changes: dict[str, Any], named: str
) -> None:
    """A model that would be computed wrongly is refused, and the error names the cause."""
    folder = write_gpu_bert(tmp_path)
    write_folder(folder, **{**BERT, **changes})
    with pytest.raises(InvalidConfig, match=named):
        encoder(folder, device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_device(tmp_path: Path) -> None:
    """Asked for by name where there is no GPU, the encoder is unavailable and says so."""
    with pytest.raises(BackendUnavailable, match="torch sees no CUDA device"):
        make_encoder(f"gpu:{write_bert(tmp_path)}")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the extra had not been installed."""
    for name in ("gpu_encoder", "gpu_bert", "triton_bert"):
        monkeypatch.delitem(sys.modules, f"ta_fast.encoder.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    return


@pytest.mark.usefixtures("without_torch")
def test_missing_extra_says_what_to_install() -> None:
    """Without torch the error names the extra."""
    with pytest.raises(BackendUnavailable, match=r"'torch'.*ta-fast\[gpu\]"):
        make_encoder("gpu")


def test_vectors_go_from_encoder_to_scorer_on_the_device(
    folder: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts to rows without the host gives the rows that the way over the host gives."""
    if INTERPRETED:
        mend_interpreter(monkeypatch)
    made = encoder(folder, device, max_tokens=256)
    texts = [f"{TEXTS[i % 4]} list" for i in range(23)] + ["the " * 150, "list " * 150]
    vectors = made.encode([f"{text} the" for text in texts])
    classes = (np.arange(len(texts)) % 3).astype(np.int32)
    matrix = ToolMatrix.from_rows(vectors, classes, 3)
    pipeline = Pipeline(made, TritonScorer(matrix, device=device))
    assert pipeline.on_device
    allowed = np.array([[1 + i % 7] for i in range(len(texts))], np.uint32)
    threshold = np.full(len(texts), -1, np.float32)
    found = pipeline.route(texts, allowed, 4, threshold).top
    expected = pipeline.route(texts, allowed, 4, threshold, vectors=True).top
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
    assert ((found.rows >= 0) == (expected.rows >= 0)).all()
    permitted = allowed[:, 0, None] >> classes[np.maximum(found.rows, 0)].astype(np.uint32) & 1
    assert permitted[found.rows >= 0].all()


def test_hybrid_pipeline_on_the_device(
    folder: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words of the same tokens are added on the device as they are on the host."""
    if INTERPRETED:
        mend_interpreter(monkeypatch)
    made = encoder(folder, device)
    tools = [Tool(f"t{i}", f"{WORDS[4 + i % 6]}_{WORDS[4 + i % 5]}") for i in range(300)]
    catalog = Catalog()
    catalog.replace([Source("f", tools)])
    catalog.embed(made)
    index = catalog.snapshot(made, "hybrid")
    pipeline = Pipeline(made, TritonScorer(index.matrix, device=device), index.lexicon)
    texts = [*TEXTS, "open request", "pull", "list open pull"]
    allowed = np.full((len(texts), 1), 1, np.uint32)
    threshold = np.full(len(texts), -1, np.float32)
    found = pipeline.route(texts, allowed, 4, threshold).top
    expected = pipeline.route(texts, allowed, 4, threshold, vectors=True).top
    dense = Pipeline(made, TritonScorer(index.matrix, device=device))
    assert (found.scores > dense.route(texts, allowed, 4, threshold).top.scores + 0.01).any()
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-3)
    alone = [pipeline.route(texts[b : b + 1], allowed[:1], 4, threshold[:1]).top for b in (2, 7)]
    for b, one in zip((2, 7), alone, strict=True):
        np.testing.assert_allclose(one.scores[0], found.scores[b], atol=2e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_another_device_than_the_current_one(folder: Path) -> None:
    """A pipeline on the second GPU answers as one on the first, and leaves the first current."""
    gates = np.full((len(TEXTS), 1), 1, np.uint32), 4, np.full(len(TEXTS), -1, np.float32)
    found = []
    for device in ("cuda:0", "cuda:1"):
        made = encoder(folder, device)
        vectors = np.eye(300, made.dim, dtype=np.float32)
        matrix = ToolMatrix.from_rows(vectors, np.zeros(300, np.int32), 1)
        pipeline = Pipeline(made, TritonScorer(matrix, device=device))
        found += [pipeline.route(TEXTS, *gates, vectors=way).top for way in (False, True)]
    assert torch.cuda.current_device() == 0
    for other in found[1:]:
        np.testing.assert_allclose(other.scores, found[0].scores, atol=2e-3)
