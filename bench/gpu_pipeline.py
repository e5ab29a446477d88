"""Text to tools on a GPU: one turn, and in bulk, beside sentence-transformers with FAISS.

    python -m bench.gpu_pipeline MODEL_FOLDER OUT.json [--commit X]

Checked first: the fused way's rows are those of the way over the host. FAISS is left out
where it is not installed, and named as such.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bench.gpu_peers import said, write_results
from ta_fast.encoder.gpu_encoder import GpuEncoder
from ta_fast.encoder.model_folder import read_model_folder
from ta_fast.pipeline import Pipeline
from ta_fast.scorer.triton_scorer import TritonScorer
from ta_fast.types import F32, U32
from ta_fast_kernels import ToolMatrix

TOOLS, CLASSES, K = 10_000, 64, 10
BULK = 65_536
SENTENCE = (
    "open close list merge find send the a stale pull request issue invoice branch channel file "
    "report to for from with about last month repo team build test deploy page ticket user"
)
WORDS = SENTENCE.split()


def texts(count: int, seed: int, words: int = 14) -> list[str]:
    """Intents of ``words`` words, each one token: 16 tokens with the two special ones."""
    rng = np.random.default_rng(seed)
    return [" ".join(row) for row in rng.choice(WORDS, (count, words))]


def operands(count: int) -> tuple[U32, F32]:
    """A gate that allows half of the classes to each turn, and no threshold."""
    rng = np.random.default_rng(count)
    allowed = rng.integers(0, 2**32, (count, CLASSES // 32), dtype=np.uint32)
    return allowed, np.full(count, -1, dtype=np.float32)


def wall(call: Callable[[int], Any], rounds: int, warm: int) -> list[float]:
    """Seconds of each of ``rounds`` calls after ``warm`` others."""
    times = []
    for i in range(warm + rounds):
        started = perf_counter()
        call(i)
        times.append(perf_counter() - started)
    return times[warm:]


def check(pipeline: Pipeline) -> None:
    """Assert that the fused way and the way over the host give the same rows."""
    for count in (1, 3, 700, 5000):
        allowed, threshold = operands(count)
        turns = texts(count, count)
        a = pipeline.route(turns, allowed, K, threshold).top
        b = pipeline.route(turns, allowed, K, threshold, vectors=True).top
        np.testing.assert_allclose(a.scores, b.scores, atol=2e-3)
        assert (a.rows == b.rows).mean() > 0.98, (a.rows == b.rows).mean()


def one_turn(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """Wall time of one turn, text in and rows on the host."""
    allowed, threshold = operands(1)
    turns = texts(64, 1)
    times = wall(lambda i: pipeline.route([turns[i % 64]], allowed, K, threshold), 2000, 200)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield {"what": f"one turn {name}", "us": 1e6 * float(np.quantile(times, share))}


def bulk(pipeline: Pipeline) -> dict[str, Any]:
    """Turns a second over many texts at once."""
    allowed, threshold = operands(BULK)
    turns = texts(BULK, 2)
    seconds = median(wall(lambda _: pipeline.route(turns, allowed, K, threshold), 5, 2))
    return {"what": "bulk", "turns": BULK, "per_s": BULK / seconds}


def peer(folder: Path, vectors: F32) -> dict[str, Any]:
    """sentence-transformers in fp16 and an ungated FAISS index, as one writes it first."""
    from sentence_transformers import SentenceTransformer

    try:
        import faiss
    except ImportError as error:
        return {"what": "sentence-transformers + FAISS", "missing": str(error)}
    model = SentenceTransformer(str(folder), device="cuda").half()
    index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), vectors.shape[1])
    index.add(vectors)
    turns = texts(8192, 2)

    def call(_: int) -> None:
        encoded = model.encode(turns, batch_size=2048, normalize_embeddings=True)
        index.search(encoded.astype(np.float32), K)

    return {
        "what": "sentence-transformers + FAISS",
        "turns": len(turns),
        "per_s": len(turns) / median(wall(call, 3, 1)),
    }


def main() -> None:
    """Check, measure, write."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--commit")
    options = parser.parse_args()
    encoder = GpuEncoder(read_model_folder(options.folder))
    vectors = encoder.encode([f"{text} {i}" for i, text in enumerate(texts(TOOLS, 0, 20))])
    classes = np.random.default_rng(0).integers(0, CLASSES, TOOLS).astype(np.int32)
    matrix = ToolMatrix.from_rows(vectors, classes, CLASSES)
    fused = Pipeline(encoder, TritonScorer(matrix))
    check(fused)
    rows = [*one_turn(fused), bulk(fused), peer(options.folder, vectors)]
    for row in rows:
        print(row)
    commit = options.commit or said("git", "rev-parse", "--short", "HEAD")
    write_results(options.out, rows, commit=commit, tools=TOOLS, classes=CLASSES, tokens=16)


if __name__ == "__main__":
    main()
