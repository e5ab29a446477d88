"""ToolAttention: the straight line of one turn, before and after the model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from os import urandom
from time import perf_counter

import numpy as np

from ta_fast import events
from ta_fast.calibration import Wish
from ta_fast.catalog import Catalog, ToolIndex
from ta_fast.catalog.facts import provided_facts
from ta_fast.check import check_calls
from ta_fast.encoder import Encoder
from ta_fast.errors import InvalidConfig, UnknownTool, did_you_mean
from ta_fast.events import EventHook, emit, listening
from ta_fast.gate import Explanation
from ta_fast.prompt import Delivery, Form, Prompt, render
from ta_fast.routing import Found, read, wanted
from ta_fast.schemas import SchemaLoader
from ta_fast.snapshot import Snapshot
from ta_fast.turns import check_turn, text_of
from ta_fast.types import U32, PromotedTool, Promotion, ToolCall, Turn, Verdict

logger = logging.getLogger("ta_fast")
_PROCESS = urandom(6).hex()
_COUNTER = count(1)


@dataclass(frozen=True, slots=True)
class ToolExplanation:
    """Why a turn may or may not call a tool; for an operator, never for a model.

    ``score`` is what ranks the tool; ``rank`` counts from 1 among the tools that the state allows,
    None if it does not allow this one. ``fit`` and ``abstained`` are the turn's.
    """

    tool_id: str
    promoted: bool
    pinned: bool
    gate: Explanation
    score: float
    threshold: float
    rank: int | None
    fit: float | None = None
    abstained: bool = False


class ToolAttention:
    """Decides for every turn which tools it may see and call; thread-safe.

    Several turns, of one session or of many, may be in flight at once: a promotion is an
    immutable value, and checking calls looks only at it, at the facts that hold then and
    at the catalog as it is then.

    Args:
        catalog: The tools; summaries without a vector by ``encoder`` are embedded now.
        encoder: Text to unit vectors.
        scorer: Name of the scorer.
        ranking: "dense" is the paper's cosine; "hybrid" adds BM25 over the words that a turn
            and a tool share; "auto" is hybrid where the encoder shows its tokens.
        loader: Full schemas; by default from the catalog.
        always_include: Ids of tools promoted on every turn whose state allows them, on
            top of the k best.
        precision: Abstain so that of the turns that get tools this share has one that
            fits; needs a calibration in the catalog (``ta-fast calibrate``).
        recall: Abstain so that of the turns that some tool fits this share gets tools;
            likewise. At most one of the two; with neither, no turn abstains.
        on_event: Called with every decision's record.
        log_intent: Put the intent's text into the records.

    Raises:
        InvalidConfig: an unknown scorer, a pinned tool that the catalog lacks, or a precision
            or recall without a calibration for the encoder.
    """

    def __init__(
        self,
        catalog: Catalog,
        encoder: Encoder,
        *,
        scorer: str = "auto",
        ranking: str = "auto",
        loader: SchemaLoader | None = None,
        always_include: Iterable[str] = (),
        precision: float | None = None,
        recall: float | None = None,
        on_event: EventHook | None = None,
        log_intent: bool = False,
    ) -> None:
        self._catalog = catalog
        self.encoder = encoder
        self.scorer = scorer
        self._ranking = ranking
        self.loader = loader or SchemaLoader(catalog)
        self._pinned = tuple(dict.fromkeys(always_include))
        self._on_event = on_event
        self._log_intent = log_intent
        self._wish = Wish(precision, recall)
        self._told = ""
        self._snapshot = self._take()
        _check_pinned(self._pinned, self.index)

    @property
    def snapshot(self) -> Snapshot:
        """The epoch that turns are routed against now."""
        return self._snapshot

    @property
    def index(self) -> ToolIndex:
        """Its tools."""
        return self._snapshot.index

    def refresh(self) -> bool:
        """Follow the catalog to its present epoch; turns in flight finish on theirs.

        Returns:
            Whether the epoch changed.
        """
        if self._catalog.epoch == self.index.epoch:
            return False
        self._snapshot = self._take()
        return True

    def _take(self) -> Snapshot:
        snapshot = Snapshot(self._catalog, self.encoder, self.scorer, self._wish, self._ranking)
        if snapshot.stale and not self._told:
            logger.warning("%s; run ta-fast calibrate", snapshot.stale)
            self._told = snapshot.stale
        return snapshot

    def before_model(self, turn: Turn) -> Promotion:
        """Promote the tools that this turn may call.

        Raises:
            InvalidTurn: empty intent, top_k <= 0, threshold outside [-1, 1], ...
        """
        return self.before_models([turn])[0]

    def before_models(self, turns: Sequence[Turn]) -> list[Promotion]:
        """Promote for many turns at once: one encoder call, one scorer call."""
        for turn in turns:
            check_turn(turn)
        if not turns:
            return []
        snapshot = self._snapshot
        facts = [turn.current_facts() for turn in turns]
        allowed = np.array([snapshot.index.gate.allowed(f) for f in facts])
        texts = [text_of(turn) for turn in turns]
        ask = wanted(snapshot, turns, vectors=self.wants_vectors)
        routed = snapshot.pipeline.route(texts, allowed, ask.k, ask.thresholds, vectors=ask.vectors)
        found = read(snapshot, turns, routed)
        return [self.promote(snapshot, *each) for each in zip(turns, found, allowed, strict=True)]

    @property
    def wants_vectors(self) -> bool:
        """Whether events are listened to, which hold a hash of the embedding."""
        return listening(self._on_event)

    def promote(self, snapshot: Snapshot, turn: Turn, found: Found, allowed: U32) -> Promotion:
        """The promotion of what one turn found in an epoch, and its event."""
        promotion = self._promote(snapshot, turn, found, allowed)
        if found.query is not None and self.wants_vectors:
            intent = turn.intent if self._log_intent else None
            emit(events.route_event(promotion, found.query, intent), self._on_event)
        return promotion

    def _promote(self, snapshot: Snapshot, turn: Turn, found: Found, allowed: U32) -> Promotion:
        started = perf_counter()
        index, scores, right = snapshot.index, found.scores, found.right
        pinned = self._pinned and [
            tool_id
            for tool_id in self._pinned
            if tool_id in index.rows and index.permits(allowed, index.rows[tool_id])
        ]
        ids = [*scores, *[i for i in pinned if i not in scores]] if pinned else list(scores)
        tools = tuple(
            [
                PromotedTool(s, scores.get(s.id), s.id in pinned, right.get(s.id))
                for s in self.loader.load(ids, index.epoch)
                if s is not None
            ]
        )
        permitted, pool_tokens = snapshot.pool_size(allowed.tobytes())
        return Promotion(
            f"{_PROCESS}-{next(_COUNTER):x}",
            turn,
            index.epoch,
            tools,
            permitted,
            len(index) - permitted,
            pool_tokens,
            sum([tool.schema.tokens for tool in tools]),
            {**found.seconds, "load": perf_counter() - started},
            found.fit,
            found.abstained,
        )

    def after_model(self, promotion: Promotion, calls: Sequence[ToolCall]) -> Verdict:
        """Accept or reject the model's calls, each on its own.

        A call is accepted when its tool was promoted for this turn, still exists, is
        still allowed by the facts that hold *now*, and the arguments fit the schema that
        the model was shown. A tool that was removed meanwhile, or that the state forbids
        now, is answered like one that never existed.
        """
        verdict = check_calls(promotion, calls, self.index)
        emit(events.check_event(promotion, verdict, self.index.epoch), self._on_event)
        return verdict

    def after_tool(self, promotion: Promotion, tool_id: str) -> frozenset[str]:
        """A tool has succeeded: set the facts that it provides in the turn's session.

        Returns:
            The facts; a turn without a session puts them into its next ``Turn`` itself.

        Raises:
            UnknownTool: the catalog has no such tool any more.
        """
        facts = provided_facts(self._catalog.tool(tool_id))
        if promotion.turn.session is not None:
            promotion.turn.session.grant(*facts)
        if listening(self._on_event):
            emit(events.result_event(promotion, tool_id), self._on_event)
        return facts

    def pool(self, turn: Turn) -> str:
        """Phase 1: a header and one line a tool that the turn's state allows, catalog order.

        The same bytes for the same state within an epoch.
        """
        snapshot = self._snapshot
        return snapshot.pool_text(snapshot.index.gate.allowed(turn.current_facts()).tobytes())

    def prompt(
        self, promotion: Promotion, form: Form = "openai", delivery: Delivery = "filter"
    ) -> Prompt:
        """Render a promotion, its summary pool included, for a provider; see ``prompt.render``."""
        deferred = []
        if delivery == "reference" and form == "anthropic":
            index = self.index
            allowed = index.gate.allowed(promotion.turn.current_facts())
            ids = [index.ids[row] for row in np.flatnonzero(index.allowed_rows(allowed))]
            deferred = [s for s in self.loader.load(ids, index.epoch) if s is not None]
        return render(promotion, self.pool(promotion.turn), form, delivery, deferred)

    def explain(self, turn: Turn, tool_id: str) -> ToolExplanation:
        """Why the turn may or may not call a tool: for operators, it names forbidden tools.

        Raises:
            UnknownTool: the catalog has no such tool.
            InvalidTurn: see ``before_model``.
        """
        check_turn(turn)
        snapshot, facts = self._snapshot, turn.current_facts()
        index = snapshot.index
        if (row := index.rows.get(tool_id)) is None:
            raise UnknownTool(
                f"the catalog has no tool {tool_id!r}{did_you_mean(tool_id, index.ids)}"
            )
        gate = index.gate.explain(int(index.classes[row]), facts)
        everything = np.full((1, index.matrix.n_words), 0xFFFFFFFF, dtype=np.uint32)
        least = np.array([-np.inf], dtype=np.float32)
        k = max(2, len(index))
        routed = snapshot.pipeline.route([text_of(turn)], everything, k, least, vectors=True)
        rows, scores = routed.top.rows, routed.top.scores
        score = float(scores[rows == row][0])
        permitted = index.allowed_rows(index.gate.allowed(facts))[rows[0]] & (rows[0] >= 0)
        first = np.argsort(~permitted, kind="stable")  # those that the state allows, best first
        rank = int(np.flatnonzero(rows[0, first] == row)[0]) + 1 if gate.allowed else None
        pinned = tool_id in self._pinned
        fit, abstained = None, False
        if snapshot.judge is not None and routed.queries is not None:
            scores = np.where(permitted, scores, -np.inf)[:, first].astype(np.float32)
            best = np.where(permitted, rows, -1)[:, first].astype(np.int32)
            judged = snapshot.judge(scores, best, routed.queries, routed.words)
            fit, abstained = float(judged.fit[0]), bool(judged.abstained[0])
        chosen = rank is not None and rank <= turn.top_k and score >= turn.threshold
        promoted = (chosen and not abstained) or (pinned and gate.allowed)
        return ToolExplanation(
            tool_id, promoted, pinned, gate, score, turn.threshold, rank, fit, abstained
        )


def _check_pinned(pinned: Sequence[str], index: ToolIndex) -> None:
    for tool_id in pinned:
        if tool_id not in index.rows:
            raise InvalidConfig(
                f"always_include names {tool_id!r}, which the catalog lacks"
                f"{did_you_mean(tool_id, index.ids)}"
            )
