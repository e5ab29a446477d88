"""How much of the time a GPU works, traced while a load runs."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class Kernels:
    """The share of time in which the GPU runs a kernel or copies, traced by torch's profiler."""

    def __init__(self, device: str) -> None:
        self.there = device != "cpu"
        self.share: float | str = 0.0

    async def traced(self, load: Coroutine[object, object, T]) -> T:
        """Run a load, traced."""
        if not self.there:
            return await load
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as trace:
            began = perf_counter()
            report = await load
            wall = perf_counter() - began
        try:
            on_gpu = [e for e in trace.events() if str(e.device_type).endswith("CUDA")]
            spans = sorted((e.time_range.start, e.time_range.end) for e in on_gpu)
            self.share = round(union(spans) / 1e6 / wall, 4)
        except Exception as error:  # the figure beside it stands for itself
            self.share = repr(error)
        return report


def union(spans: Sequence[tuple[float, float]]) -> float:
    """How much ascending spans cover together."""
    covered, end = 0.0, float("-inf")
    for first, last in spans:
        covered += max(0.0, last - max(first, end))
        end = max(end, last)
    return covered
