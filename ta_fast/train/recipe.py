"""What a training run does: one frozen value, so that a variant is one line."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from ta_fast.errors import InvalidConfig, did_you_mean
from ta_fast.train.data import TEXTS, VIEWS


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is trained.

    Attributes:
        passes: Times that every query is seen.
        queries: Queries of a batch; all are of one catalog.
        tools: Tools sampled for a batch beside the gold ones, of the same catalog.
        temperature: What scores are divided by, the lexical part included.
        rate: AdamW's highest rate; it rises over ``warm_up`` and falls linearly to 0.
        warm_up: Share of the steps.
        decay: AdamW's weight decay, not of biases and norms.
        dropout: Of embeddings, attention and each residual.
        views: Texts drawn for a tool in a batch; its vector is their mean, as served.
        of_texts: What they are drawn from: 3 is the served views, 5 two more wordings.
        joint: What the served lexical score is multiplied with and added; 0 leaves it out.
        dense: Share of the loss that is of the dense score alone.
        loss: ``each`` gold tool against the others, or ``any`` of them.
        hard: Negatives of each query that the model ranks highest, mined before each pass.
        hard_below: Only those that score below this share of the best gold tool's score;
            what scores higher may be right as well.
        noise: Share of the queries that are read with typos or cut short.
        turns: Share of the queries that are read as turns of a conversation.
        keep: Share of the change that is kept; the rest is averaged away with the original.
        seeds: Models trained, from ``seed`` on, whose weights are averaged.
        most: Queries of one set that a pass sees, drawn anew for each; 0 is all.
        seed: Of everything that is drawn.
    """

    passes: int = 3
    queries: int = 64
    tools: int = 512
    temperature: float = 0.05
    rate: float = 1e-4
    warm_up: float = 0.1
    decay: float = 0.01
    dropout: float = 0.1
    views: int = VIEWS
    of_texts: int = VIEWS
    joint: float = 0.0
    dense: float = 0.0
    loss: Literal["each", "any"] = "each"
    hard: int = 0
    hard_below: float = 0.95
    noise: float = 0.0
    turns: float = 0.0
    keep: float = 1.0
    seeds: int = 1
    most: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run; InvalidConfig names the value."""
        none = dict.fromkeys(("tools", "hard", "most", "seed"), 0)
        for name, least in {"passes": 1, "queries": 1, "views": 1, "seeds": 1, **none}.items():
            if getattr(self, name) < least:
                raise InvalidConfig(
                    f"{name}: expected {least} or more, found {getattr(self, name)}"
                )
        for name in ("warm_up", "dropout", "dense", "noise", "turns", "keep"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfig(f"{name}: expected 0 to 1, found {getattr(self, name)}")
        if self.noise + self.turns > 1:
            found = f"{self.noise} + {self.turns}"
            raise InvalidConfig(f"noise + turns: expected at most 1, found {found}")
        if not self.views <= self.of_texts <= TEXTS:
            found = f"{self.views} of {self.of_texts}"
            raise InvalidConfig(f"views, of_texts: expected at most {TEXTS}, found {found}")
        if self.temperature <= 0 or self.loss not in ("each", "any"):
            found = f"{self.temperature}, {self.loss!r}"
            raise InvalidConfig(f"temperature, loss: expected above 0, each or any; found {found}")

    def having(self, changes: list[str]) -> Recipe:
        """This recipe with changes such as ``views=1``."""
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        values = {}
        for change in changes:
            name, _, value = change.partition("=")
            if name not in kinds:
                hint = did_you_mean(name, kinds)
                raise InvalidConfig(f"{change!r} changes nothing of a recipe{hint}")
            try:
                values[name] = kinds[name](value)
            except ValueError:
                kind = kinds[name].__name__
                raise InvalidConfig(f"{name}: expected {kind}, found {value!r}") from None
        return replace(self, **values)
