"""Many texts as batches: in parts that are tokenised ahead, each part sorted by length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

TEXTS_AT_ONCE = 4096
"""Texts tokenised together, so that memory is bounded."""
AHEAD = 2
"""Parts that are being tokenised while one is computed."""


def ahead(
    tokenise: Callable[[Sequence[str]], T], texts: Sequence[str]
) -> Iterator[tuple[slice, T]]:
    """Which texts each part holds, in order, and what ``tokenise`` makes of it.

    The next parts are under way in other threads when one is handed out. No texts are one part.
    """
    if len(texts) <= TEXTS_AT_ONCE:
        yield slice(0, len(texts)), tokenise(texts)
        return
    parts = [slice(i, i + TEXTS_AT_ONCE) for i in range(0, len(texts), TEXTS_AT_ONCE)]
    with ThreadPoolExecutor(AHEAD) as workers:
        started = (workers.submit(tokenise, texts[part]) for part in parts)
        waiting = deque(islice(started, AHEAD))
        for part in parts:
            done = waiting.popleft().result()
            waiting.extend(islice(started, 1))
            yield part, done


def by_length(lengths: Sequence[int], max_tokens: int, *, padded: bool) -> Iterator[list[int]]:
    """Places of texts by falling length, in batches of at most ``max_tokens`` tokens.

    ``padded`` counts every text of a batch as long as its longest. A longer text is alone.
    """
    batch: list[int] = []
    room = max_tokens
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        cost = lengths[batch[0]] if padded and batch else lengths[place]
        if batch and cost > room:
            yield batch
            batch, room, cost = [], max_tokens, lengths[place]
        batch.append(place)
        room -= cost
    if batch:
        yield batch
