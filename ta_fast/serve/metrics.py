"""What the service counts, and everything as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import accumulate

from ta_fast.engine import Distribution, Stats
from ta_fast.engine.metrics import SECONDS
from ta_fast.gateway import Gateway
from ta_fast.types import Promotion

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


TEXTS = {
    "promotions": "Turns that got a promotion.",
    "abstained": "Promotions of turns that no tool fits.",
    "promoted_tools": "Tools promoted.",
    "tokens_sent": "Tokens of pools and promoted schemas.",
    "tokens_saved": "Tokens that all schemas take above those.",
}


@dataclass(slots=True)
class Promoted:
    """What the turns of one catalog were promoted; see ``TEXTS``."""

    promotions: int = 0
    abstained: int = 0
    promoted_tools: int = 0
    tokens_sent: int = 0
    tokens_saved: int = 0


class Metrics:
    """Counts requests and promotions; belongs to one event loop.

    Attributes:
        catalog_tokens: What all schemas of each catalog take; 0 until it is known.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._total: Counter[str] = Counter()
        self._promoted: dict[str, Promoted] = {"": Promoted()}
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
        counts = self._promoted.get(catalog)
        if counts is None:
            counts = self._promoted[catalog] = Promoted()
        counts.promotions += 1
        counts.abstained += promotion.abstained
        counts.promoted_tools += len(promotion.tools)
        counts.tokens_sent += sent
        counts.tokens_saved += max(0, self.catalog_tokens.get(catalog, 0) - sent)

    def text(self, state: str, gateway: Gateway | None) -> str:
        """Everything, for a scrape."""
        lines = [*self._own(state)]
        if gateway is not None:
            lines += [*_catalogs(gateway), *_engine(gateway.stats)]
        return "\n".join([*lines, ""])

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
        for field in fields(Promoted):
            counts = [(_of(c), getattr(n, field.name)) for c, n in sorted(self._promoted.items())]
            yield from _family(f"{field.name}_total", "counter", TEXTS[field.name], counts)


def _of(catalog: str) -> Labels:
    # An empty label is none to Prometheus.
    return {"catalog": catalog} if catalog else {}


def _catalogs(gateway: Gateway) -> Iterator[str]:
    indices = [(_of(name), of.attention.index) for name, of in sorted(gateway.catalogs.items())]
    epochs = [(labels, index.epoch) for labels, index in indices]
    yield from _family("catalog_epoch", "gauge", "What turns are routed against.", epochs)
    tools = [(labels, len(index)) for labels, index in indices]
    yield from _family("catalog_tools", "gauge", "Tools of that epoch.", tools)
    hits, misses = gateway.lookups
    found = [({"result": "hit"}, hits), ({"result": "miss"}, misses)]
    text = "Turns looked up among remembered embeddings."
    yield from _family("embedding_lookups_total", "counter", text, found)


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
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"ta_fast_{name}{{{inside}}} {value!r}" if inside else f"ta_fast_{name} {value!r}"


def _escaped(text: str) -> str:
    """A label's value; the names of catalogs are the operator's."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
