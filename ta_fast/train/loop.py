"""The training loop: AdamW with warm-up and linear decay, saved after every pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ta_fast.errors import InvalidConfig
from ta_fast.train.batches import Batch, DeviceSet, draw, loss_of, mine, plan
from ta_fast.train.bert import Bert, unit_mean
from ta_fast.train.measure import scores
from ta_fast.train.recipe import Recipe

_MOST_GRADIENT = 1.0
Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, mean loss of the pass so far)."""


def train(
    start: Bert,
    sets: Sequence[DeviceSet],
    recipe: Recipe,
    *,
    state: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Bert, list[float]]:
    """Train a copy of a model.

    Args:
        start: The original, on the sets' device.
        sets: What it is trained on.
        recipe: How.
        state: Where to save after each pass and to go on from, a file for each seed; without,
            nothing is saved.
        progress: Told of each step.

    Returns:
        The trained model, and the mean loss of each pass of each seed.

    Raises:
        InvalidConfig: no set has a query, or ``state`` is of another run.
    """
    models, losses = [], []
    for number in range(recipe.seeds):
        one = replace(recipe, seed=recipe.seed + number, seeds=1)
        file = state and state.with_stem(f"{state.stem}-{number}")
        told = progress and partial(_told, progress, number, recipe.seeds)
        model, found = _train_one(start, sets, one, file, told)
        models.append(model)
        losses += found
    return averaged(start, models, recipe.keep), losses


def _told(progress: Progress, number: int, of: int, done: int, total: int, loss: float) -> None:
    progress(number * total + done, of * total, loss)


def _train_one(
    start: Bert,
    sets: Sequence[DeviceSet],
    recipe: Recipe,
    state: Path | None,
    progress: Progress | None,
) -> tuple[Bert, list[float]]:
    bert = start.copy()
    weights = bert.trained()
    optimiser = _optimiser(weights, recipe)
    run = _key(start, sets, recipe)
    losses = [] if state is None else _resume(state, run, weights, optimiser)
    steps = [len(plan(sets, recipe, _generator(recipe, i))) for i in range(recipe.passes)]
    total = sum(steps)
    if not total:
        raise InvalidConfig("nothing to train on: expected a set with a query that has gold tools")
    for number in range(len(losses), recipe.passes):
        rng, done = _generator(recipe, number), sum(steps[:number])
        torch.manual_seed(recipe.seed * 1009 + number)  # dropout's, the same after a resume
        batches = plan(sets, recipe, rng)
        mined = _mined(bert, sets, recipe)
        sums = torch.zeros((), device=bert.device)
        for place, (which, rows) in enumerate(batches):
            batch = draw(sets[which], rows, recipe, rng, mined[which])
            _set_rate(optimiser, recipe, (done + place + 0.5) / total)
            sums += _step(bert, weights, optimiser, batch, recipe)
            if progress and (bert.device.type == "cpu" or place % 16 == 0):  # reading waits
                progress(done + place + 1, total, float(sums) / (place + 1))
        losses.append(float(sums) / len(batches))
        if state is not None:
            _save(state, run, weights, optimiser, losses)
    return bert, losses


def averaged(start: Bert, trained: Sequence[Bert], keep: float) -> Bert:
    """The original plus a share of the mean change.

    Averaging with the original is of Wortsman et al., "Robust fine-tuning of zero-shot models"
    (arXiv 2109.01903), averaging models of one start of "Model soups" (arXiv 2203.05482).
    Weights are rounded as they are stored, so that what is measured is what is served.
    """
    result = start.copy()
    with torch.no_grad():
        for name, weight in result.trained().items():
            mean = torch.stack([one.weights[name] for one in trained]).mean(dim=0)
            weight.lerp_(mean, keep).copy_(weight.half())
    return result


def _step(
    bert: Bert,
    weights: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    recipe: Recipe,
) -> Tensor:
    queries = bert.encode(batch.of.queries, batch.queries, recipe.dropout)
    tools = unit_mean(bert.encode(batch.of.tools, batch.texts, recipe.dropout), recipe.views)
    logits = queries @ tools.T / recipe.temperature
    share = recipe.dense if recipe.joint else 1.0
    loss = share * loss_of(logits, batch.right, recipe.loss)
    if share < 1:
        columns = torch.from_numpy(batch.tools).to(bert.device)
        lexical = recipe.joint / recipe.temperature * batch.of.lexical(batch.queries)[:, columns]
        loss = loss + (1 - share) * loss_of(logits + lexical, batch.right, recipe.loss)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights.values(), _MOST_GRADIENT)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def _mined(bert: Bert, sets: Sequence[DeviceSet], recipe: Recipe) -> list[Any]:
    if not recipe.hard:
        return [None] * len(sets)
    found = []
    for one in sets:
        dense, lexical = scores(bert, one)
        ranked = (dense + recipe.joint * lexical).float()
        found.append(mine(ranked, one.gold, recipe))
    return found


def _optimiser(weights: dict[str, Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    wide = [weight for weight in weights.values() if weight.ndim > 1]
    narrow = [weight for weight in weights.values() if weight.ndim == 1]
    groups = [{"params": wide, "weight_decay": recipe.decay}, {"params": narrow, "weight_decay": 0}]
    fused = bool(wide and wide[0].device.type == "cuda")
    return torch.optim.AdamW(groups, lr=recipe.rate, fused=fused)


def _set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: float) -> None:
    rising = done / recipe.warm_up if recipe.warm_up else 1.0
    falling = (1 - done) / (1 - recipe.warm_up) if recipe.warm_up < 1 else 1.0
    for group in optimiser.param_groups:
        group["lr"] = recipe.rate * min(rising, falling)


def _generator(recipe: Recipe, number: int) -> np.random.Generator:
    """One pass's draws: its own, so that a resumed run draws the same."""
    return np.random.default_rng([recipe.seed, number])


def _key(start: Bert, sets: Sequence[DeviceSet], recipe: Recipe) -> str:
    """What a saved state is of: the recipe, the sets and the original weights."""
    what = [asdict(recipe), *(one.source.digest() for one in sets)]
    total = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for name, weight in sorted(start.weights.items()):
        total.update(f"{name} {float(weight.detach().double().sum())!r}".encode())
    return total.hexdigest()


def _save(
    state: Path, run: str, weights: dict[str, Tensor], optimiser: Any, losses: list[float]
) -> None:
    kept = {name: weight.detach() for name, weight in weights.items()}
    what = {"run": run, "weights": kept, "optimiser": optimiser.state_dict(), "losses": losses}
    partial = state.with_name(state.name + ".partial")
    torch.save(what, partial)
    partial.replace(state)


def _resume(state: Path, run: str, weights: dict[str, Tensor], optimiser: Any) -> list[float]:
    if not state.exists():
        return []
    device = next(iter(weights.values())).device
    saved = torch.load(state, map_location=device, weights_only=True)
    if saved["run"] != run:
        message = f"{state} is of other sets, another recipe or model; remove it to start anew"
        raise InvalidConfig(message)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved["weights"][name])
    optimiser.load_state_dict(saved["optimiser"])
    return list(saved["losses"])
