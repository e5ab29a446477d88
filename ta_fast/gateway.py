"""Gateway: many agents' turns against several catalogs, through one engine.

The asynchronous counterpart of ``ToolAttention``: the same promotions and verdicts, with the
turns of all callers batched, sessions kept in a store, and promotions remembered by handle. A
transport translates to and from it, and adds no decision of its own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from ta_fast.sessions import MemoryStore, SessionKey, SessionState, SessionStore, deliver
from ta_fast.sessions.keeping import with_kept
from ta_fast.snapshot import Snapshot
from ta_fast.turns import check_turn, text_of
from ta_fast.types import Promotion, ToolCall, Turn, Verdict

KEPT = 32
"""Tools that a session keeps: about so many definitions stay in its context."""
REMEMBERED = 100_000
"""Promotions that are kept for their checks; the oldest go first."""


def _with(turn: Turn, state: SessionState) -> Turn:
    """The turn with its session's facts."""
    return replace(turn, facts=turn.facts | state.facts) if state.facts else turn


class _Made(NamedTuple):
    """A promotion that is remembered, and the turn as it came: without its session's facts."""

    tenant: str
    catalog: str
    session: str
    turn: Turn
    promotion: Promotion


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
        self._epochs: WeakKeyDictionary[Snapshot, Epoch] = WeakKeyDictionary()
        self._promotions: OrderedDict[str, _Made] = OrderedDict()

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
        names = list(sessions) or [""] * len(turns)
        if not turns or len(names) != len(turns):
            raise InvalidTurn(
                f"{len(names)} sessions for {len(turns)} turns; expected one for each"
            )
        results: dict[int, Promotion | TaFastError] = {}
        for i, turn in enumerate(turns):
            try:
                check_turn(turn)
            except InvalidTurn as error:
                results[i] = error
        good = [i for i in range(len(turns)) if i not in results]
        if good:
            keys = [SessionKey(tenant, names[i]) for i in good]
            states = [await self._state(key) for key in keys]
            facing = [_with(turns[i], state) for i, state in zip(good, states, strict=True)]
            promotions = await self._promote(attention, facing, tenant, timeout)
            for i, key, state, promotion in zip(good, keys, states, promotions, strict=True):
                results[i] = promotion
                if isinstance(promotion, Promotion):
                    kept = await self._keep(attention, key, state, promotion)
                    # Checked by the session's facts as they are then, so without those of now.
                    self._remember(tenant, catalog, key.id, turns[i], kept)
                    results[i] = kept
        return [results[i] for i in range(len(turns))]

    async def _promote(
        self, attention: ToolAttention, turns: Sequence[Turn], tenant: str, timeout: float | None
    ) -> list[Promotion | TaFastError]:
        snapshot = attention.snapshot
        gate = snapshot.index.gate
        allowed = np.array([gate.allowed(turn.current_facts()) for turn in turns])
        ask = wanted(snapshot, turns, vectors=attention.wants_vectors)
        epoch = self._epoch(snapshot, attention, vectors=ask.vectors)
        texts = [text_of(turn) for turn in turns]
        answer = await self._engine.route(
            Request(epoch, texts, allowed, ask.k, ask.thresholds, tenant, timeout)
        )
        found = read(snapshot, turns, routed(answer))
        ids = list(dict.fromkeys(tool for each in found for tool in each.scores))
        lacking = attention.loader.lacks(ids, snapshot.index.epoch)
        if lacking:  # their source may be slow
            await asyncio.to_thread(attention.loader.load, lacking, snapshot.index.epoch)
        return [
            answer.errors.get(b) or attention.promote(snapshot, turns[b], found[b], allowed[b])
            for b in range(len(turns))
        ]

    async def check(self, handle: str, calls: Sequence[ToolCall], *, tenant: str = "") -> Verdict:
        """Accept or reject a model's calls; see ``ToolAttention.after_model``.

        Raises:
            UnknownTool: the tenant has no promotion of this handle, or it is forgotten.
        """
        made = self._recall(tenant, handle)
        turn = _with(made.turn, await self._state(SessionKey(tenant, made.session)))
        promotion = replace(made.promotion, turn=turn)
        return self.attention(made.catalog).after_model(promotion, calls)

    async def after_tool(self, handle: str, tool_id: str, *, tenant: str = "") -> frozenset[str]:
        """A promoted tool has succeeded: set what it provides in the turn's session.

        Returns:
            The facts.

        Raises:
            UnknownTool: no such promotion, or it did not promote the tool.
        """
        made = self._recall(tenant, handle)
        if tool_id not in made.promotion.ids:
            raise UnknownTool(f"promotion {handle!r} has no tool {tool_id!r}")
        facts = self.attention(made.catalog).after_tool(made.promotion, tool_id)
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

    async def _state(self, key: SessionKey) -> SessionState:
        return await self._sessions.read(key) if key.id else SessionState()

    async def _keep(
        self, attention: ToolAttention, key: SessionKey, state: SessionState, promotion: Promotion
    ) -> Promotion:
        """The promotion with what its session keeps; what is delivered is remembered."""
        if not key.id or not self._kept:
            return promotion
        index = attention.index
        allowed = index.gate.allowed(promotion.turn.current_facts())

        def permitted(tool: str) -> bool:
            row = index.rows.get(tool)
            return row is not None and index.permits(allowed, row)

        before = state.history
        history = await deliver(self._sessions, key, before, promotion.ids, permitted, self._kept)
        return with_kept(promotion, attention.loader, before.tools, history.tools)

    def _epoch(self, snapshot: Snapshot, attention: ToolAttention, *, vectors: bool) -> Epoch:
        epoch = self._epochs.get(snapshot)
        if epoch is None:
            index = snapshot.index
            others = [
                Pipeline(encoder, make_scorer(attention.scorer, index.matrix), index.lexicon)
                for encoder in self._encoders[1:]
            ]
            pipelines = [snapshot.pipeline, *others]
            routers = tuple(PipelineRouter(pipeline, vectors=vectors) for pipeline in pipelines)
            epoch = self._epochs[snapshot] = Epoch(routers, index.matrix.n_words)
        return epoch

    def _remember(
        self, tenant: str, catalog: str, session: str, turn: Turn, promotion: Promotion
    ) -> None:
        self._promotions[promotion.handle] = _Made(tenant, catalog, session, turn, promotion)
        if len(self._promotions) > REMEMBERED:
            self._promotions.popitem(last=False)

    def _recall(self, tenant: str, handle: str) -> _Made:
        made = self._promotions.get(handle)
        if made is None or made.tenant != tenant:
            raise UnknownTool(f"there is no promotion {handle!r}, or it is forgotten")
        return made
