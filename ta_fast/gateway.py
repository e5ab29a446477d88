"""Gateway: many agents' turns against several catalogs, through one engine.

The asynchronous counterpart of ``ToolAttention``: the same promotions and verdicts, with the
turns of all callers batched, sessions kept in a store, and promotions remembered by handle. A
transport translates to and from it, and adds no decision of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ta_fast.attention import ToolAttention
from ta_fast.encoder import Encoder
from ta_fast.engine import Engine, Epoch, Progress, Request, Stats
from ta_fast.errors import InvalidConfig, InvalidTurn, TaFastError, UnknownTool
from ta_fast.pipeline import Pipeline
from ta_fast.routers import PipelineRouter, routed
from ta_fast.routing import read, wanted
from ta_fast.scorer import make_scorer
from ta_fast.sessions import (
    NOTHING,
    Keeper,
    MemoryStore,
    Promoted,
    Promotions,
    SessionKey,
    SessionState,
    SessionStore,
    check_key,
)
from ta_fast.snapshot import Snapshot
from ta_fast.turns import check_turn, text_of
from ta_fast.types import Promotion, ToolCall, Turn, Verdict

KEPT = 32
"""Tools that a session keeps: about so many definitions stay in its context."""


def _with(turn: Turn, state: SessionState) -> Turn:
    """The turn with its session's facts."""
    if not state.facts:
        return turn
    # A session's own set is one object for equal facts: its hash is known.
    facts = turn.facts | state.facts if turn.facts else state.facts
    return Turn(turn.intent, facts, turn.session, turn.top_k, turn.threshold, turn.context)


class _Served(NamedTuple):
    """An epoch of a catalog: for the engine, and what sessions keep of it."""

    epoch: Epoch
    keeper: Keeper


class Gateway:
    """Answers turns of many tenants, sessions and catalogs at once.

    One instance belongs to one event loop. Whatever happens to a turn, it is answered: by a
    promotion, or by an error of ``ta_fast.errors``.

    Args:
        catalogs: By name; "" is the one that is meant where none is named.
        engine: Batches the turns. It is closed with the gateway.
        encoders: One for each of the engine's devices; the first is that of the catalogs.
        sessions: Facts of sessions; in memory by default. It is closed with the gateway.
        kept: Tools that a session's turns keep from earlier ones, so that the list delivered
            grows at its end and a provider's cache holds; cut back to the turn's own when it
            would grow beyond. 0 keeps none.

    Raises:
        InvalidConfig: no catalog, or another number of encoders than of devices.
    """

    def __init__(
        self,
        catalogs: Mapping[str, ToolAttention],
        engine: Engine,
        encoders: Sequence[Encoder],
        sessions: SessionStore | None = None,
        kept: int = KEPT,
    ) -> None:
        if not catalogs:
            raise InvalidConfig("catalogs is empty; expected at least one")
        if len(encoders) != engine.devices:
            raise InvalidConfig(
                f"{len(encoders)} encoders for {engine.devices} devices; expected one for each"
            )
        self._catalogs = dict(catalogs)
        self._engine = engine
        self._encoders = tuple(encoders)
        self._sessions = sessions or MemoryStore()
        self._kept = kept
        self._served: WeakKeyDictionary[Snapshot, _Served] = WeakKeyDictionary()
        self._made = Promotions()

    @property
    def ready(self) -> bool:
        """Whether new turns are taken: False while draining, and when no device works."""
        return self._engine.progress.ready

    @property
    def progress(self) -> Progress:
        """Whether turns come and go."""
        return self._engine.progress

    @property
    def stats(self) -> Stats:
        """What the engine counted."""
        return self._engine.stats

    @property
    def sessions(self) -> SessionStore:
        """Facts of sessions."""
        return self._sessions

    def attention(self, catalog: str = "") -> ToolAttention:
        """The catalog of a name.

        Raises:
            UnknownTool: there is none.
        """
        if catalog not in self._catalogs:
            raise UnknownTool(f"there is no catalog {catalog!r}")
        return self._catalogs[catalog]

    async def route(
        self,
        turns: Sequence[Turn],
        *,
        sessions: Sequence[str] = (),
        tenant: str = "",
        catalog: str = "",
        timeout: float | None = None,
    ) -> list[Promotion | TaFastError]:
        """Promote tools for some turns of one tenant.

        Args:
            turns: At least one; ``Turn.session`` is for sessions in this process.
            sessions: The id of each turn's session in the store, "" for none; or nothing.
            tenant: Whose turns they are: whose share of the engine, and whose sessions.
            catalog: Its name.
            timeout: Seconds until the answer must be there.

        Returns:
            For each turn its promotion, or why it has none.

        Raises:
            Overloaded, DeadlineExceeded, BackendUnavailable: no turn got an answer.
            UnknownTool: no such catalog.
        """
        attention = self.attention(catalog)
        if not turns or len(sessions) not in (0, len(turns)):
            raise InvalidTurn(
                f"{len(sessions)} sessions for {len(turns)} turns; expected one for each"
            )
        keys = [SessionKey(tenant, name) for name in sessions or ("",) * len(turns)]
        results: dict[int, Promotion | TaFastError] = {}
        for i, turn in enumerate(turns):
            try:
                check_turn(turn)
                if keys[i].id:
                    check_key(keys[i])
            except InvalidTurn as error:
                results[i] = error
        good = [i for i in range(len(turns)) if i not in results]
        if good:
            asked = [turns[i] for i in good]
            promotions = await self._route(attention, asked, [keys[i] for i in good], timeout)
            for i, promotion in zip(good, promotions, strict=True):
                results[i] = promotion
                if isinstance(promotion, Promotion):
                    # Checked by the session's facts as they are then, so without those of now.
                    self._made.remember(tenant, catalog, keys[i].id, turns[i], promotion)
        return [results[i] for i in range(len(turns))]

    async def _route(
        self,
        attention: ToolAttention,
        turns: Sequence[Turn],
        keys: Sequence[SessionKey],
        timeout: float | None,
    ) -> list[Promotion | TaFastError]:
        """Promote tools for turns that are in order."""
        states = await self._states(keys)
        facing = list(map(_with, turns, states))
        snapshot = attention.snapshot
        gate = snapshot.index.gate
        allowed = np.array([gate.allowed(turn.current_facts()) for turn in facing])
        ask = wanted(snapshot, facing, vectors=attention.wants_vectors)
        served = self._serve(snapshot, attention, vectors=ask.vectors)
        texts = [text_of(turn) for turn in facing]
        answer = await self._engine.route(
            Request(served.epoch, texts, allowed, ask.k, ask.thresholds, keys[0].tenant, timeout)
        )
        found = read(snapshot, facing, routed(answer))
        ids = dict.fromkeys(tool for each in found for tool in each.scores)
        lacking = attention.loader.lacks(list(ids), snapshot.index.epoch)
        if lacking:  # their source may be slow
            await asyncio.to_thread(attention.loader.load, lacking, snapshot.index.epoch)
        results = [
            answer.errors.get(b) or attention.promote(snapshot, facing[b], found[b], allowed[b])
            for b in range(len(facing))
        ]
        promoted = {
            b: Promoted(result, allowed[b], keys[b], states[b].history)
            for b, result in enumerate(results)
            if self._kept and keys[b].id and isinstance(result, Promotion)
        }
        if promoted:
            kept = await served.keeper.keep(self._sessions, list(promoted.values()), self._kept)
            for b, promotion in zip(promoted, kept, strict=True):
                results[b] = promotion
        return results

    async def check(self, handle: str, calls: Sequence[ToolCall], *, tenant: str = "") -> Verdict:
        """Accept or reject a model's calls; see ``ToolAttention.after_model``.

        Raises:
            UnknownTool: the tenant has no promotion of this handle, or it is forgotten.
        """
        made = self._made.recall(tenant, handle)
        (state,) = await self._states([SessionKey(tenant, made.session)])
        promotion = made.promotion(handle, state.facts)
        return self.attention(made.catalog).after_model(promotion, calls)

    async def after_tool(self, handle: str, tool_id: str, *, tenant: str = "") -> frozenset[str]:
        """A promoted tool has succeeded: set what it provides in the turn's session.

        Returns:
            The facts.

        Raises:
            UnknownTool: no such promotion, or it did not promote the tool.
        """
        made = self._made.recall(tenant, handle)
        promotion = made.promotion(handle)
        if tool_id not in promotion.ids:
            raise UnknownTool(f"promotion {handle!r} has no tool {tool_id!r}")
        facts = self.attention(made.catalog).after_tool(promotion, tool_id)
        if made.session:
            await self._sessions.update(SessionKey(tenant, made.session), grant=facts)
        return facts

    async def reload(self, catalog: str = "") -> int:
        """Follow a catalog to its present epoch, while turns go on; returns the epoch."""
        attention = self.attention(catalog)
        await asyncio.to_thread(attention.refresh)
        return attention.index.epoch

    async def aclose(self, timeout: float = 30.0) -> None:
        """Refuse new turns, answer those that were accepted, and end."""
        await self._engine.aclose(timeout)
        await self._sessions.aclose()

    async def _states(self, keys: Sequence[SessionKey]) -> list[SessionState]:
        named = [key for key in keys if key.id]
        if not named:
            return [NOTHING] * len(keys)
        states = iter(await self._sessions.read_many(named))
        return [next(states) if key.id else NOTHING for key in keys]

    def _serve(self, snapshot: Snapshot, attention: ToolAttention, *, vectors: bool) -> _Served:
        served = self._served.get(snapshot)
        if served is None:
            index = snapshot.index
            others = [
                Pipeline(encoder, make_scorer(attention.scorer, index.matrix), index.lexicon)
                for encoder in self._encoders[1:]
            ]
            pipelines = [snapshot.pipeline, *others]
            routers = tuple(PipelineRouter(pipeline, vectors=vectors) for pipeline in pipelines)
            epoch, keeper = Epoch(routers, index.matrix.n_words), Keeper(index, attention.loader)
            served = self._served[snapshot] = _Served(epoch, keeper)
        return served
