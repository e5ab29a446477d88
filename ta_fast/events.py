"""One structured record per decision, to the standard logger and to a hook.

Records go to the logger ``ta_fast.events`` at INFO as one JSON object, and to the hook
as they are. The intent's text is in them only when it was asked for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from time import time
from typing import Literal, TypeAlias

from ta_fast.types import F32, Promotion, Verdict

logger = logging.getLogger("ta_fast.events")


@dataclass(frozen=True, slots=True)
class RouteEvent:
    """What one turn was promoted, and why.

    ``turn`` is the promotion's handle; ``query_hash`` is equal for equal embeddings and
    tells nothing of the text; ``candidates`` and ``gated`` count the tools that
    the state allowed and kept out; ``active`` pairs tool ids with cosines (None: pinned).
    With a calibration ``fit`` is the probability that some tool fits, and ``right`` pairs
    tool ids with that of being right; ``abstained``: no tool was taken to fit.
    """

    turn: str
    session: str
    time: float
    epoch: int
    query_hash: str
    candidates: int
    gated: int
    active: tuple[tuple[str, float | None], ...]
    pool_tokens: int
    schema_tokens: int
    seconds: Mapping[str, float]
    intent: str | None = None
    fit: float | None = None
    abstained: bool = False
    right: tuple[tuple[str, float | None], ...] = ()
    event: Literal["route"] = "route"


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """What became of the model's calls: ids of accepted tools, reasons of rejections."""

    turn: str
    session: str
    time: float
    epoch: int
    accepted: tuple[str, ...]
    rejected: tuple[str, ...]
    event: Literal["check"] = "check"


@dataclass(frozen=True, slots=True)
class ResultEvent:
    """An accepted call went well; `ta_fast.train` learns from these where a log has them."""

    turn: str
    session: str
    time: float
    tool_id: str
    ok: bool = True
    event: Literal["result"] = "result"


Event: TypeAlias = RouteEvent | CheckEvent | ResultEvent
EventHook: TypeAlias = Callable[[Event], None]


def route_event(promotion: Promotion, query: F32, intent: str | None) -> RouteEvent:
    """The record of a promotion, made from query embedding ``[D]``."""
    return RouteEvent(
        turn=promotion.handle,
        session=_session_id(promotion),
        time=time(),
        epoch=promotion.epoch,
        query_hash=blake2b(query.tobytes(), digest_size=8).hexdigest(),
        candidates=promotion.allowed,
        gated=promotion.gated,
        active=tuple((tool.id, tool.score) for tool in promotion.tools),
        pool_tokens=promotion.pool_tokens,
        schema_tokens=promotion.schema_tokens,
        seconds=promotion.seconds,
        intent=intent,
        fit=promotion.fit,
        abstained=promotion.abstained,
        right=() if promotion.fit is None else _right(promotion),
    )


def _right(promotion: Promotion) -> tuple[tuple[str, float | None], ...]:
    return tuple((tool.id, tool.probability) for tool in promotion.tools)


def check_event(promotion: Promotion, verdict: Verdict, epoch: int) -> CheckEvent:
    """The record of a verdict, reached in the given epoch."""
    return CheckEvent(
        turn=promotion.handle,
        session=_session_id(promotion),
        time=time(),
        epoch=epoch,
        accepted=tuple(call.tool_id for call in verdict.accepted),
        rejected=tuple(rejection.reason for rejection in verdict.rejected),
    )


def result_event(promotion: Promotion, tool_id: str) -> ResultEvent:
    """The record of a tool's success."""
    return ResultEvent(promotion.handle, _session_id(promotion), time(), tool_id)


def _session_id(promotion: Promotion) -> str:
    return promotion.turn.session.id if promotion.turn.session else ""


def listening(hook: EventHook | None) -> bool:
    """Whether anybody would get a record; making one costs a turn some microseconds."""
    return hook is not None or logger.isEnabledFor(logging.INFO)


def emit(event: Event, hook: EventHook | None) -> None:
    """Record an event. A hook that raises is logged; it never fails the turn."""
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", json.dumps(asdict(event), ensure_ascii=False))
    if hook is not None:
        try:
            hook(event)
        except Exception:
            logger.exception("the event hook failed")
