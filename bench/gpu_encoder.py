"""The GPU encoder: checked, then timed beside sentence-transformers and ONNX Runtime, as JSON.

    python -m bench.gpu_encoder FOLDER [--reference FILE.npz] [--out FILE.json]

FOLDER holds all-MiniLM-L6-v2 or another BERT. The reference is sentence-transformers in
float32, or FILE.npz: ``vectors`` float32 [B, D] and ``texts``, B strings as JSON in bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from onnxruntime import OrtValue
from sentence_transformers import SentenceTransformer
from torch.profiler import ProfilerActivity, profile

from bench.gpu_peers import machine, said
from ta_fast.encoder.gpu_encoder import GpuEncoder, _shape
from ta_fast.encoder.model_folder import read_model_folder
from ta_fast.encoder.onnx_encoder import OnnxEncoder
from ta_fast.encoder.packed import Packed
from ta_fast.encoder.tokenizer import Tokens, as_row
from ta_fast.errors import BackendUnavailable
from ta_fast.types import F32

SHAPES = [
    (16, 1), (64, 1), (256, 1), (16, 8), (16, 32), (16, 512), (16, 1024), (16, 2048), (16, 8192),
    (64, 128), (64, 256), (64, 512), (64, 2048), (256, 128),
]  # fmt: skip
PEERS = [(16, 1), (16, 32), (16, 2048), (64, 256), (64, 2048)]
SENTENCE = (
    "open the pull request that lists stale issues in my repo and tell one channel about every "
    "file which was changed since last monday"
)
WORDS = SENTENCE.split()


def main() -> None:
    """Check, time, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--commit", default=said("git", "rev-parse", "--short", "HEAD"))
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    peer = SentenceTransformer(str(options.folder), device="cuda").float()
    texts, vectors = reference(peer, options.reference)
    results: dict[str, Any] = {**machine(), "commit": options.commit, "tflops": matmul_rate()}
    encoder = GpuEncoder(read_model_folder(options.folder), max_tokens=131_072)
    results["fidelity"] = {"float16": fidelity(encoder.encode(texts), vectors)}
    for dtype in ("bfloat16", "float32"):
        other = GpuEncoder(read_model_folder(options.folder), dtype=dtype)
        results["fidelity"][dtype] = fidelity(other.encode(texts), vectors)
    assert results["fidelity"]["float16"]["least"] > 0.995
    results["ours"] = [ours(encoder, *shape, rate=results["tflops"]) for shape in SHAPES]
    results["mixed"] = mixed(encoder)
    results["one_text"] = one_text(encoder)
    peer.half()
    results["bulk_texts"] = bulk(encoder, peer)
    results["peer"] = [eager(peer, *shape) for shape in PEERS]
    results["onnxruntime"] = onnxruntime_gpu(options.folder, texts, vectors)
    results["kernels"] = {
        f"{tokens} x {texts}": kernels(encoder, tokens, texts)
        for tokens, texts in [(16, 1), (16, 2048), (64, 2048)]
    }
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    for part, found in results.items():
        for row in found if isinstance(found, list) else [found]:
            print(part, json.dumps(row))


def reference(peer: SentenceTransformer, file: Path | None) -> tuple[list[str], F32]:
    """Texts and their float32 vectors."""
    if file:
        stored = np.load(file)
        return json.loads(stored["texts"].tobytes()), stored["vectors"]
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(1000)]
    return texts, peer.encode(texts, normalize_embeddings=True)


def fidelity(got: F32, expected: F32) -> dict[str, float]:
    """Cosines to the reference."""
    cosines = (got * expected).sum(1)
    return {"mean": float(cosines.mean()), "least": float(cosines.min())}


def batch(tokens: int, texts: int) -> Packed:
    """Random ids: ``texts`` texts of ``tokens`` tokens."""
    rng = np.random.default_rng(tokens + texts)
    return Packed.of_rows([as_row(row) for row in rng.integers(1000, 30_000, (texts, tokens))])


def ours(encoder: GpuEncoder, tokens: int, texts: int, *, rate: float) -> dict[str, Any]:
    """One shape as a graph: ids from pinned memory, vectors left on the device.

    Time, texts a second, share of the matrix rate.
    """
    packed = batch(tokens, texts)
    encoder.forward(packed)
    shape = _shape(tokens * texts, texts, tokens)
    assert shape[0] == tokens * texts, "a shape whose graph pads"
    seconds = device_time(encoder._graphs[shape].replay)
    done = flops(encoder, tokens) * tokens * texts / seconds / 1e12
    return {
        "tokens": tokens, "texts": texts, "ms": seconds * 1e3, "per_s": texts / seconds,
        "tflops": done, "share": done / rate,
    }  # fmt: skip


def flops(encoder: GpuEncoder, tokens: int) -> float:
    """Floating-point operations for one token in a text of ``tokens``, all layers."""
    dim, inner = encoder.dim, encoder._bert._inner
    products = 2 * (4 * dim * dim + 2 * dim * inner)
    return len(encoder._bert._layers) * float(products + 4 * tokens * dim)


def mixed(encoder: GpuEncoder) -> dict[str, float]:
    """2,048 texts of 4 to 60 tokens in one batch, and the same padded to 60, by ours."""
    rng = np.random.default_rng(2)
    lengths = rng.integers(4, 61, 2048)
    packed = Packed.of_rows([as_row(rng.integers(1000, 30_000, n)) for n in lengths])
    encoder.forward(packed)
    graph = encoder._graphs[_shape(int(lengths.sum()), 2048, 60)]
    seconds = device_time(graph.replay)
    return {"tokens": int(lengths.sum()), "ms": seconds * 1e3, "per_s": 2048 / seconds}


def one_text(encoder: Any) -> dict[str, float]:
    """Wall time of one text: ids to vector on the host, and text to vector; p50 in ms."""
    text = " ".join(WORDS[:14])
    ids = encoder.tokenize([text])
    times: dict[str, float] = {"tokens": ids.ids.size}
    for name, work in (
        ("forward", lambda: encoder.forward(ids)),
        ("encode", lambda: encoder.encode([text])),
    ):
        wall_time(work, 20)
        times[name] = wall_time(work, 300) * 1e3
    return times


def bulk(encoder: GpuEncoder, peer: SentenceTransformer) -> dict[str, float]:
    """Text in, vectors out, 16,384 texts of about 14 words: texts a second, ours and the peer's."""
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, 14)) for _ in range(16_384)]
    encoder.encode(texts)
    theirs = wall_time(lambda: peer.encode(texts, batch_size=2048, normalize_embeddings=True), 1)
    return {
        "ours": len(texts) / wall_time(lambda: encoder.encode(texts), 5),
        "sentence-transformers": len(texts) / theirs,
    }


def eager(peer: SentenceTransformer, tokens: int, texts: int) -> dict[str, Any]:
    """The peer's forward in half precision, ids and mask on the device already."""
    packed = batch(tokens, texts)
    ids = torch.tensor(packed.ids.reshape(texts, tokens), device="cuda", dtype=torch.long)
    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def forward() -> None:
        with torch.inference_mode():
            peer(dict(features))

    forward()
    seconds = device_time(forward)
    return {"tokens": tokens, "texts": texts, "ms": seconds * 1e3, "per_s": texts / seconds}


def onnxruntime_gpu(folder: Path, texts: list[str], vectors: F32) -> dict[str, Any]:
    """The ONNX Runtime encoder in half precision; or what is missing."""
    try:
        encoder = OnnxEncoder(folder, device="cuda", fused=True)
    except BackendUnavailable as error:
        return {"missing": str(error)}
    found: dict[str, Any] = {"version": version("onnxruntime-gpu")}
    found["fidelity"] = fidelity(encoder.encode(texts), vectors)
    assert found["fidelity"]["least"] > 0.995
    found["shapes"] = [bound(encoder, *shape) for shape in PEERS]
    found["one_text"] = one_text(encoder)
    return found


def bound(encoder: OnnxEncoder, tokens: int, texts: int) -> dict[str, Any]:
    """Wall time of a forward of ids on the device to vectors there, and from host to host."""
    ids = batch(tokens, texts).ids.reshape(texts, tokens).astype(np.int64)
    padded = Tokens(ids, np.ones_like(ids))
    binding = encoder._session.io_binding()
    for name, array in {"input_ids": padded.ids, "attention_mask": padded.mask}.items():
        binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, "cuda"))
    there = OrtValue.ortvalue_from_shape_and_type([texts, encoder.dim], np.float32, "cuda")
    binding.bind_ortvalue_output("vectors", there)
    times = {
        "ms": lambda: encoder._session.run_with_iobinding(binding),
        "host_ms": lambda: encoder.forward(padded),
    }
    row: dict[str, Any] = {"tokens": tokens, "texts": texts}
    for name, work in times.items():
        wall_time(work, 5)
        row[name] = wall_time(work, 30) * 1e3
    np.testing.assert_allclose(there.numpy(), encoder.forward(padded), atol=1e-3)
    return row | {"per_s": texts / row["ms"] * 1e3}


def kernels(encoder: GpuEncoder, tokens: int, texts: int) -> dict[str, float]:
    """Microseconds of each kernel, all layers together, launched one by one."""
    packed = batch(tokens, texts)
    encoder.forward(packed)
    shape = _shape(tokens * texts, texts, tokens)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(5):
            encoder._launch(shape)
        torch.cuda.synchronize()
    found = {row.key[:60]: row.device_time_total / 5 for row in profiled.key_averages()}
    return dict(sorted(found.items(), key=lambda item: -item[1])[:10])


def matmul_rate() -> float:
    """TFLOP/s of a bf16 product of 8192 x 8192 matrices of random numbers."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / device_time(lambda: a @ b) / 1e12


def device_time(work: Callable[[], object]) -> float:
    """Median seconds of ``work`` on the device, over 7 rounds of 20 ms or more."""
    work()
    torch.cuda.synchronize()
    started = perf_counter()
    work()
    torch.cuda.synchronize()
    repeats = max(3, min(200, int(0.02 / (perf_counter() - started))))
    times = []
    for _ in range(7):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / repeats)
    return median(times)


def wall_time(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of ``work`` by the host's clock."""
    times = []
    for _ in range(rounds):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return median(times)


if __name__ == "__main__":
    main()
