"""Gateway: many agents' turns against several catalogs, through one engine.

The asynchronous counterpart of ``ToolAttention``: the same promotions and verdicts, with the
turns of all callers batched, sessions kept in a store, and promotions remembered by handle. A
transport translates to and from it, and adds no decision of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ta_fast.attention import ToolAttention
from ta_fast.encoder import Encoder
from ta_fast.engine import Engine, Epoch, Progress, RememberingEncoder, Request, Stats
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


async def _states(store: SessionStore, keys: Sequence[SessionKey]) -> list[SessionState]:
    """The states of sessions; nothing where a key names none."""
    named = [key for key in keys if key.id]
    if not named:
        return [NOTHING] * len(keys)
    states = iter(await store.read_many(named))
    return [next(states) if key.id else NOTHING for key in keys]


class _Served(NamedTuple):
    """An epoch of a catalog: for the engine, and what sessions keep of it."""

    epoch: Epoch
    keeper: Keeper


class OpenCatalog(NamedTuple):
    """A catalog with its sessions and promotions: nothing of it is found through another."""

    attention: ToolAttention
    sessions: SessionStore
    made: Promotions


class Gateway:
    """Answers turns of many tenants, sessions and catalogs at once.

    One instance belongs to one event loop. Whatever happens to a turn, it is answered: by a
    promotion, or by an error of ``ta_fast.errors``.

    Args:
        catalogs: By name; "" is the one that is meant where none is named.
        engine: Batches the turns. It is closed with the gateway.
        encoders: One for each of the engine's devices, for all catalogs.
        sessions: Makes the store of a catalog's sessions, of its name; in memory by default.
            It is closed with the gateway.
        kept: Tools that a session's turns keep from earlier ones, so that the list delivered
            grows at its end and a provider's cache holds; cut back to the turn's own when it
            would grow beyond. 0 keeps none.
        devices: Of the scorers, as ``make_scorer`` takes them; "" for each if left out.

    Raises:
        InvalidConfig: no catalog, another number of encoders than of devices, or an encoder
            of another name than a catalog's.
    """

    def __init__(
        self,
        catalogs: Mapping[str, ToolAttention],
        engine: Engine,
        encoders: Sequence[Encoder],
        sessions: Callable[[str], SessionStore] = lambda _: MemoryStore(),
        kept: int = KEPT,
        devices: Sequence[str] = (),
    ) -> None:
        if not catalogs:
            raise InvalidConfig("catalogs is empty; expected at least one")
        self._devices = tuple(devices) or ("",) * engine.devices
        if not len(encoders) == len(self._devices) == engine.devices:
            raise InvalidConfig(
                f"{len(encoders)} encoders for {engine.devices} devices; expected one for each"
            )
        names = {each.name for each in (*encoders, *(a.encoder for a in catalogs.values()))}
        if len(names) > 1:
            raise InvalidConfig(f"encoders {', '.join(sorted(names))}; expected one")
        self.catalogs: Mapping[str, OpenCatalog] = {
            name: OpenCatalog(attention, sessions(name), Promotions())
            for name, attention in catalogs.items()
        }
        self._engine = engine
        self._encoders = tuple(encoders)
        self._kept = kept
        self._served: WeakKeyDictionary[Snapshot, _Served] = WeakKeyDictionary()

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
    def lookups(self) -> tuple[int, int]:
        """Turns whose embedding was remembered, and turns whose was not; 0 where none is."""
        kept = [each for each in self._encoders if isinstance(each, RememberingEncoder)]
        return sum(each.hits for each in kept), sum(each.misses for each in kept)

    def catalog(self, name: str = "") -> OpenCatalog:
        """One of ``catalogs``; raises UnknownTool if there is none of this name."""
        if name not in self.catalogs:
            raise UnknownTool(f"there is no catalog {name!r}")
        return self.catalogs[name]

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
        of = self.catalog(catalog)
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
            promotions = await self._route(of, asked, [keys[i] for i in good], timeout)
            for i, promotion in zip(good, promotions, strict=True):
                results[i] = promotion
                if isinstance(promotion, Promotion):
                    # Checked by the session's facts as they are then, so without those of now.
                    of.made.remember(tenant, catalog, keys[i].id, turns[i], promotion)
        return [results[i] for i in range(len(turns))]

    async def _route(
        self,
        of: OpenCatalog,
        turns: Sequence[Turn],
        keys: Sequence[SessionKey],
        timeout: float | None,
    ) -> list[Promotion | TaFastError]:
        """Promote tools for turns that are in order."""
        states = await _states(of.sessions, keys)
        facing = list(map(_with, turns, states))
        attention, snapshot = of.attention, of.attention.snapshot
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
            kept = await served.keeper.keep(of.sessions, list(promoted.values()), self._kept)
            for b, promotion in zip(promoted, kept, strict=True):
                results[b] = promotion
        return results

    async def check(
        self, handle: str, calls: Sequence[ToolCall], *, tenant: str = "", catalog: str = ""
    ) -> Verdict:
        """Accept or reject a model's calls; see ``ToolAttention.after_model``.

        Raises:
            UnknownTool: no such catalog; or the tenant has no promotion of this handle there,
                or it is forgotten.
        """
        of = self.catalog(catalog)
        made = of.made.recall(tenant, handle)
        (state,) = await _states(of.sessions, [SessionKey(tenant, made.session)])
        return of.attention.after_model(made.promotion(handle, state.facts), calls)

    async def after_tool(
        self, handle: str, tool_id: str, *, tenant: str = "", catalog: str = ""
    ) -> frozenset[str]:
        """A promoted tool has succeeded: set what it provides in the turn's session, and return it.

        Raises:
            UnknownTool: no such catalog or promotion, or it did not promote the tool.
        """
        of = self.catalog(catalog)
        made = of.made.recall(tenant, handle)
        promotion = made.promotion(handle)
        if tool_id not in promotion.ids:
            raise UnknownTool(f"promotion {handle!r} has no tool {tool_id!r}")
        facts = of.attention.after_tool(promotion, tool_id)
        if made.session:
            await of.sessions.update(SessionKey(tenant, made.session), grant=facts)
        return facts

    async def reload(self, catalog: str = "") -> int:
        """Follow a catalog to its present epoch, while turns go on; returns the epoch."""
        attention = self.catalog(catalog).attention
        await asyncio.to_thread(attention.refresh)
        return attention.index.epoch

    async def aclose(self, timeout: float = 30.0) -> None:
        """Refuse new turns, answer those that were accepted, and end."""
        await self._engine.aclose(timeout)
        await asyncio.gather(*(of.sessions.aclose() for of in self.catalogs.values()))

    def _serve(self, snapshot: Snapshot, attention: ToolAttention, *, vectors: bool) -> _Served:
        served = self._served.get(snapshot)
        if served is None:
            index, (device, *others) = snapshot.index, self._devices
            make = partial(make_scorer, attention.scorer, index.matrix)
            scorers = [make(device) if device else snapshot.scorer, *map(make, others)]
            routers = tuple(
                PipelineRouter(Pipeline(encoder, scorer, index.lexicon), vectors=vectors)
                for encoder, scorer in zip(self._encoders, scorers, strict=True)
            )
            epoch, keeper = Epoch(routers, index.matrix.n_words), Keeper(index, attention.loader)
            served = self._served[snapshot] = _Served(epoch, keeper)
        return served
