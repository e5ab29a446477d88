"""An answer is right, whatever else happens: the same as alone, or an error that fits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ta_fast.engine import Answer, Columns, Engine, Epoch, Limits, Request, Rows
from ta_fast.errors import BackendUnavailable, DeadlineExceeded, Overloaded
from ta_fast.scorer import NumpyScorer
from ta_fast.testing import HashingEncoder
from ta_fast.types import F32, U32
from ta_fast_kernels import ToolMatrix
from tests.engine.routers import LIMIT, FakeRouter, answers, epoch, found, raise_on, request, within


@dataclass(frozen=True)
class Words:
    """Texts for `HashingRouter`."""

    texts: tuple[str, ...]

    @property
    def lengths(self) -> list[int]:
        return [len(text) for text in self.texts]

    def take(self, rows: Rows) -> Words:
        return Words(tuple(self.texts[row] for row in rows))


class HashingRouter:
    """A real encoder and a real scorer."""

    def __init__(self, matrix: ToolMatrix) -> None:
        self._encoder, self._scorer = HashingEncoder(), NumpyScorer(matrix)

    def prepare(self, texts: list[str]) -> Words:
        return Words(tuple(texts))

    def run(self, prepared: Words, allowed: U32, k: int, threshold: F32) -> Columns:
        top = self._scorer.topk(self._encoder.encode(prepared.texts), allowed, k, threshold)
        return {"scores": top.scores, "rows": top.rows}


def test_batched_is_single() -> None:
    """The same bits for a turn, alone, beside others, and in a long request."""
    rng = np.random.default_rng(6)
    names = [f"{a} {b} {c}" for a in "abcdefgh" for b in "klmnop" for c in "uvwxyz"]
    vectors = HashingEncoder().encode(names)
    classes = rng.integers(0, 40, len(names)).astype(np.int32)
    on = Epoch((HashingRouter(ToolMatrix.from_rows(vectors, classes, 40)),), words=2)
    texts = [" ".join(rng.choice(list("abcdefghklmnopuvwxyz"), 4)) for _ in range(300)]
    allowed = rng.integers(0, 2**32, (300, 2)).astype(np.uint32)
    threshold = rng.choice([-1.0, 0.0, 0.3], 300).astype(np.float32)
    k = rng.integers(1, 30, 300)

    def one(i: int) -> Request:
        rows = slice(i, i + 1)
        return Request(on, texts[rows], allowed[rows], int(k[i]), threshold[rows])

    async def story() -> None:
        async with Engine() as engine:
            alone = [await engine.route(one(i)) for i in range(300)]
            beside = await asyncio.gather(*(engine.route(one(i)) for i in range(300)))
            long = await engine.route(Request(on, texts, allowed, 30, threshold))
        for i, (a, b) in enumerate(zip(alone, beside, strict=True)):
            for values in ("scores", "rows"):
                expected = getattr(a.top, values)
                assert expected.tobytes() == getattr(b.top, values).tobytes()
                assert expected.tobytes() == getattr(long.top, values)[i, : k[i]].tobytes()

    within(LIMIT, story())


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["one", "many", "poison", "cancel", "late", "wait", "block"]),
        st.integers(0, 1),
    ),
    max_size=40,
)


@settings(max_examples=40)
@given(events=EVENTS, broken=st.sampled_from(["before_prepare", "before_run"]), fatal=st.booleans())
def test_every_waiter_has_an_answer(
    events: list[tuple[str, int]], broken: str, fatal: bool
) -> None:
    """Whatever the order of events: the right answer, or an error that fits."""
    error = SystemExit if fatal else RuntimeError
    routers = [FakeRouter(shift << 24, **{broken: raise_on("poison", error)}) for shift in range(2)]
    epochs = [epoch(router) for router in routers]
    fitting = (BackendUnavailable, DeadlineExceeded, Overloaded, asyncio.CancelledError)

    async def story() -> None:
        async with Engine(limits=Limits(rows=4, waiting=30)) as engine:
            asked = []
            for number, (event, on) in enumerate(events):
                texts = [f"{event} {number} {i}" for i in range(7 if event == "many" else 1)]
                seconds = 0.0 if event == "late" else 10.0
                if event == "wait":
                    await asyncio.sleep(0.0005)
                elif event == "block":
                    routers[on].free.clear()
                else:
                    turn = engine.route(request(epochs[on], *texts, timeout=seconds))
                    asked.append((texts, on, asyncio.ensure_future(turn)))
                if event == "cancel":
                    asked[number // 2 % len(asked)][2].cancel()
            await asyncio.sleep(0)
            for router in routers:
                router.free.set()
            for texts, on, waiting in asked:
                (got,) = await asyncio.gather(waiting, return_exceptions=True)
                if isinstance(got, Answer):
                    right = zip(found(got), answers(texts, on << 24), strict=True)
                    assert all(a == b for i, (a, b) in enumerate(right) if i not in got.errors)
                else:
                    assert isinstance(got, fitting)

    within(LIMIT, story())
