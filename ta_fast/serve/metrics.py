"""What the service counts, and everything as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from ta_fast.engine import Distribution, Stats
from ta_fast.engine.metrics import SECONDS
from ta_fast.types import Promotion

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


class Metrics:
    """Counts requests and promotions; belongs to one event loop.

    Attributes:
        catalog_tokens: What all schemas of each catalog take; 0 until it is known.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._total: Counter[str] = Counter()
        self._promotions = self._abstained = 0
        self._tools = self._tokens_sent = self._tokens_saved = 0
        self.catalog_tokens: dict[str, int] = {}

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """A request that was answered; ``path`` is the operation's, not the client's."""
        self._requests[method, path, status] += 1
        counts = self._seconds.get(path)
        if counts is None:
            counts = self._seconds[path] = [0] * (len(SECONDS) + 1)
        counts[bisect_left(SECONDS, seconds)] += 1
        self._total[path] += seconds  # type: ignore[assignment]

    def promotion(self, promotion: Promotion, catalog: str) -> None:
        """A turn that was promoted tools."""
        sent = promotion.pool_tokens + promotion.schema_tokens
        self._promotions += 1
        self._abstained += promotion.abstained
        self._tools += len(promotion.tools)
        self._tokens_sent += sent
        self._tokens_saved += max(0, self.catalog_tokens.get(catalog, 0) - sent)

    def text(self, state: str, stats: Stats | None) -> str:
        """Everything, for a scrape."""
        return "\n".join([*self._own(state), *(_engine(stats) if stats else ()), ""])

    def _own(self, state: str) -> Iterator[str]:
        yield from _family("up_state", "gauge", "The service's state.", [({"state": state}, 1)])
        yield from _family(
            "http_requests_total",
            "counter",
            "Requests answered.",
            [
                ({"method": method, "path": path, "status": str(status)}, count)
                for (method, path, status), count in sorted(self._requests.items())
            ],
        )
        yield from _histograms(
            "http_request_seconds",
            "Time of a request, its body's arrival included.",
            {
                path: Distribution(SECONDS, tuple(counts), float(self._total[path]))
                for path, counts in sorted(self._seconds.items())
            },
            "path",
        )
        for name, value, text in (
            ("promotions_total", self._promotions, "Turns that got a promotion."),
            ("abstained_total", self._abstained, "Promotions of turns that no tool fits."),
            ("promoted_tools_total", self._tools, "Tools promoted."),
            ("tokens_sent_total", self._tokens_sent, "Tokens of pools and promoted schemas."),
            ("tokens_saved_total", self._tokens_saved, "Tokens that all schemas take above those."),
        ):
            yield from _family(name, "counter", text, [({}, value)])


def _engine(stats: Stats) -> Iterator[str]:
    for name, value, text in (
        ("queue_turns", stats.waiting, "Turns that wait for a device."),
        ("devices", stats.devices, "Devices that work."),
    ):
        yield from _family(name, "gauge", text, [({}, value)])
    for name, value, text in (
        ("device_restarts_total", stats.restarts, "Devices' threads begun again."),
        ("turns_total", stats.turns, "Turns computed."),
    ):
        yield from _family(name, "counter", text, [({}, value)])
    rejected = [({"reason": r}, n) for r, n in sorted(stats.rejections.items())]
    yield from _family("rejected_turns_total", "counter", "Turns without an answer.", rejected)
    for name, distribution, text in (
        ("batch_turns", stats.batch_rows, "Turns of a batch."),
        ("batch_tokens", stats.batch_tokens, "Tokens of a batch."),
    ):
        yield from _histograms(name, text, {"": distribution})
    stages = {"queue": stats.queue, "prepare": stats.prepare, "run": stats.run}
    text = "Time in the queue, of requests; of batches, on the tokenising and device threads."
    yield from _histograms("stage_seconds", text, stages, "stage")


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP ta_fast_{name} {text}"
    yield f"# TYPE ta_fast_{name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _histograms(
    name: str, text: str, parts: Mapping[str, Distribution], label: str = ""
) -> Iterator[str]:
    yield f"# HELP ta_fast_{name} {text}"
    yield f"# TYPE ta_fast_{name} histogram"
    for value, part in parts.items():
        labels = {label: value} if label else {}
        bounds = [*map(repr, part.bounds), "+Inf"]
        for bound, count in zip(bounds, accumulate(part.counts), strict=True):
            yield _sample(f"{name}_bucket", {**labels, "le": bound}, count)
        yield _sample(f"{name}_sum", labels, part.total)
        yield _sample(f"{name}_count", labels, sum(part.counts))


def _sample(name: str, labels: Labels, value: float) -> str:
    # Label values are the service's own words and paths: nothing in them needs an escape.
    inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
    return f"ta_fast_{name}{{{inside}}} {value!r}" if inside else f"ta_fast_{name} {value!r}"
