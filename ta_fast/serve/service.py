"""What the endpoints share: the gateway, the keys, the limits, and where the service stands."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal

from ta_fast.attention import ToolAttention
from ta_fast.gateway import Gateway
from ta_fast.serve.errors import unavailable
from ta_fast.serve.keys import Keys
from ta_fast.serve.metrics import Metrics
from ta_fast.serve.trace import Spans
from ta_fast.types import DEFAULT_THRESHOLD, DEFAULT_TOP_K

logger = logging.getLogger("ta_fast")

State = Literal["starting", "ready", "leaving", "draining"]
"""``leaving``: readiness is gone, turns are still taken; ``draining``: they are refused."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service behaves.

    Attributes:
        top_k, threshold: Of turns that name none.
        max_body: Bytes of a request's body.
        exchange: Seconds from a request's first byte until its answer is written: bounds slow
            writers and slow readers. Above the engine's own timeout.
        leave: Seconds between losing readiness and refusing turns, in which load balancers
            take notice.
        drain: Seconds that accepted turns have to finish.
        stalled: Seconds without progress, while turns wait, after which the service is not
            healthy. A first batch may compile kernels.
    """

    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD
    max_body: int = 4 * 1024 * 1024
    exchange: float = 60.0
    leave: float = 1.0
    drain: float = 30.0
    stalled: float = 30.0


class Service:
    """One gateway being served; belongs to one event loop.

    Args:
        keys: Who may call.
        settings: How it behaves.
        spans: Makes OpenTelemetry spans; None for none.
    """

    def __init__(
        self, keys: Keys, settings: Settings | None = None, spans: Spans | None = None
    ) -> None:
        self.keys = keys
        self.settings = settings or Settings()
        self.spans = spans
        self.metrics = Metrics()
        self.state: State = "starting"
        self._gateway: Gateway | None = None
        self._counting: set[asyncio.Task[None]] = set()

    @property
    def gateway(self) -> Gateway:
        """Answers turns.

        Raises:
            Refused: 503, there is none yet or no more.
        """
        if self._gateway is None or self.state == "draining":
            raise unavailable(f"the service is {self.state}; it takes no requests now")
        return self._gateway

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.state == "ready" and self._gateway is not None and self._gateway.ready

    @property
    def leaving(self) -> bool:
        """Whether connections should not be kept."""
        return self.state in ("leaving", "draining")

    @property
    def stalled(self) -> float:
        """Seconds without progress while turns wait."""
        return self._gateway.progress.stalled if self._gateway else 0.0

    def begin(self, gateway: Gateway) -> None:
        """Serve a gateway from now on, unless the service is leaving already."""
        self._gateway = gateway
        if self.state == "starting":
            self.state = "ready"
        for name in gateway.catalogs:
            self.count_tokens(name)

    def metrics_text(self) -> str:
        """For Prometheus."""
        return self.metrics.text(self.state, self._gateway)

    def count_tokens(self, catalog: str) -> None:
        """Learn what all schemas of a catalog take, beside the work, to say what is saved."""
        if self._gateway is None:
            return
        attention = self._gateway.catalog(catalog).attention
        task = asyncio.get_running_loop().create_task(self._count(attention, catalog))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _count(self, attention: ToolAttention, catalog: str) -> None:
        try:
            tokens = await asyncio.to_thread(_all_tokens, attention)
        except Exception:
            logger.exception("could not count the tokens of catalog %r", catalog)
        else:
            self.metrics.catalog_tokens[catalog] = tokens


def _all_tokens(attention: ToolAttention) -> int:
    index = attention.index
    return sum(s.tokens for s in attention.loader.load(index.ids, index.epoch) if s is not None)
