"""What each step sees: queries of one catalog, their gold tools, and others to tell them from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as fn

from ta_fast.train.bert import DeviceTexts
from ta_fast.train.data import I64, NOISY, TEXTS, WORDINGS, TrainingSet
from ta_fast.train.recipe import Recipe
from ta_fast_kernels import UNIT, TermRows


class DeviceSet:
    """A set's texts, and its tools' terms as a table, on a device.

    The table has a row of N weights for each term: 4 V N bytes. Sums of whole numbers are
    exact, so they are those of every scorer.
    """

    def __init__(self, source: TrainingSet, device: torch.device) -> None:
        self.source, self.device = source, device
        self.tools = DeviceTexts.put(source.tools, device)
        self.queries = DeviceTexts.put(source.queries, device)

    @cached_property
    def _table(self) -> Tensor:
        rows = self.source.tool_terms
        count = 1 + int(
            max(rows.terms.max(initial=0), self.source.query_terms.terms.max(initial=0))
        )
        table = torch.zeros(count, self.source.n_tools, device=self.device)
        owner = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
        at = [
            torch.from_numpy(array.astype(np.int64)).to(self.device)
            for array in (rows.terms, owner)
        ]
        table[at[0], at[1]] = torch.from_numpy(rows.values).to(self.device).float()
        return table

    def lexical(self, places: I64) -> Tensor:
        """What words add to the scores, ``[B, N]``, for some texts of the queries."""
        turns: TermRows = self.source.query_terms.take(places)
        terms = torch.from_numpy(turns.terms.astype(np.int64)).to(self.device)
        starts = torch.from_numpy(turns.offsets[:-1].copy()).to(self.device)
        return fn.embedding_bag(terms, self._table, starts, mode="sum") * UNIT

    @cached_property
    def gold(self) -> NDArray[np.bool_]:
        """Which tools are right for a query, ``[Q, N]``."""
        gold = np.zeros((self.source.n_queries, self.source.n_tools), np.bool_)
        gold[self.source.gold[:, 0], self.source.gold[:, 2]] = True
        return gold


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B queries and M tools of one set, as places.

    ``queries`` are of `DeviceSet.queries` ``[B]``, ``texts`` of `DeviceSet.tools` ``[M * views]``,
    ``tools`` rows of the catalog ``[M]``; ``right`` is bool ``[B, M]``.
    """

    of: DeviceSet
    queries: I64
    tools: I64
    texts: I64
    right: Tensor


def plan(
    sets: Sequence[DeviceSet], recipe: Recipe, rng: np.random.Generator
) -> list[tuple[int, I64]]:
    """The batches of one pass: (set, rows of its queries), all shuffled."""
    batches = []
    for number, one in enumerate(sets):
        rows = rng.permutation(np.flatnonzero(one.gold.any(axis=1)))
        rows = rows[: recipe.most or None]
        cuts = np.array_split(rows, max(1, -(-len(rows) // recipe.queries)))
        batches += [(number, cut) for cut in cuts if len(cut)]
    return [batches[i] for i in rng.permutation(len(batches))]


def draw(
    one: DeviceSet,
    rows: I64,
    recipe: Recipe,
    rng: np.random.Generator,
    mined: NDArray[np.int64] | None,
) -> Batch:
    """Draw the tools, the texts and the noise of one batch.

    Args:
        one: The set.
        rows: Its queries.
        recipe: How many.
        rng: Draws.
        mined: Hard negatives of every query of the set, ``[Q, hard]``; -1 is none.
    """
    gold = one.gold[rows]
    chosen: NDArray[np.bool_] = np.asarray(gold.any(axis=0))
    if mined is not None:
        hard = mined[rows].ravel()
        chosen[hard[hard >= 0]] = True
    others = np.flatnonzero(~chosen)
    chosen[rng.permutation(others)[: recipe.tools]] = True
    tools = np.flatnonzero(chosen)
    chance = rng.random(len(rows))
    kinds = [chance < recipe.noise, chance >= 1 - recipe.turns]
    drawn = [rng.integers(1, 1 + NOISY, len(rows)), rng.integers(1 + NOISY, WORDINGS, len(rows))]
    wording = np.select(kinds, drawn, 0)
    texts = np.tile(np.arange(recipe.of_texts), (len(tools), 1))
    if recipe.views < recipe.of_texts:
        texts = rng.permuted(texts, axis=1)[:, : recipe.views]
    right = torch.from_numpy(gold[:, tools]).to(one.device)
    places = (tools[:, None] * TEXTS + texts).ravel()
    return Batch(one, rows * WORDINGS + wording, tools, places, right)


def loss_of(logits: Tensor, right: Tensor, kind: str) -> Tensor:
    """Softmax loss of logits ``[B, M]`` against several right tools.

    ``each``: the mean over the right tools of -log of its share among itself and the wrong
    ones. ``any``: -log of the share of all right ones together. Queries weigh the same.
    """
    logits = logits.float()
    if kind == "any":
        good = logits.masked_fill(~right, -torch.inf).logsumexp(dim=1)
        return (logits.logsumexp(dim=1) - good).mean()
    wrong = logits.masked_fill(right, -torch.inf).logsumexp(dim=1, keepdim=True)
    each = fn.softplus(wrong - logits).masked_fill(~right, 0.0)
    return (each.sum(dim=1) / right.sum(dim=1)).mean()


def mine(scores: Tensor, gold: NDArray[np.bool_], recipe: Recipe) -> NDArray[Any]:
    """The wrong tools that rank highest, of scores ``[Q, N]``: rows ``[Q, hard]``, or -1.

    What scores above ``hard_below`` of the best gold tool's score is left out: it may be right
    (Moreira et al., "NV-Retriever", arXiv 2407.15831).
    """
    right = torch.from_numpy(gold).to(scores.device)
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    wrong = scores.masked_fill(right | (scores > recipe.hard_below * best), -torch.inf)
    top = wrong.topk(min(recipe.hard, wrong.shape[1]), dim=1)
    return np.asarray(torch.where(top.values > -torch.inf, top.indices, -1).cpu().numpy())
