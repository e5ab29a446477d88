"""The configuration file: JSON, every key optional."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ta_fast.encoder.model_folder import SHIPPED
from ta_fast.errors import InvalidConfig, did_you_mean
from ta_fast.types import DEFAULT_THRESHOLD, DEFAULT_TOP_K


@dataclass(frozen=True, slots=True)
class Config:
    """What a deployment decides once.

    Attributes:
        catalog: The SQLite file.
        encoder: "minilm-tools", "minilm", a folder or a Hugging Face name; or "st:", "gpu:" or
            "ort:" and one of them.
        scorer: "auto" or a scorer's name.
        ranking: "auto", "dense" or "hybrid".
        top_k: Tools promoted a turn, at most.
        threshold: Least cosine of a promoted tool, in [-1, 1].
        precision: Of the turns that get tools, the share that some tool fits; None for any.
        recall: Of the turns that some tool fits, the share that gets tools; None for all.
        always_include: Ids of tools promoted whenever the state allows them.
        overrides: The operator's file of summaries, preconditions and facts, or "".
    """

    catalog: str = "ta-fast.db"
    encoder: str = SHIPPED
    scorer: str = "auto"
    ranking: str = "auto"
    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD
    precision: float | None = None
    recall: float | None = None
    always_include: tuple[str, ...] = ()
    overrides: str = ""


def read_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        InvalidConfig: unreadable, an unknown key (the nearest is suggested), or a wrong value.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise InvalidConfig(f"{path} holds a {type(values).__name__}; expected an object")
    known = [field.name for field in fields(Config)]
    for key in values:
        if key not in known:
            raise InvalidConfig(f"{path}: unknown key {key!r}{did_you_mean(key, known)}")
    checked = {key: _check(path, key, value) for key, value in values.items()}
    return Config(**checked)


def write_config(path: Path, config: Config) -> None:
    """Write a configuration file whole, or not at all; keys at their default are left out."""
    default = asdict(Config())
    values = {key: value for key, value in asdict(config).items() if value != default[key]}
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _check(path: Path, key: str, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if key == "top_k":
        good, expected = number and value == int(value) and value > 0, "a whole number from 1"
    elif key == "threshold":
        good, expected = number and -1 <= value <= 1, "a number in [-1, 1]"
    elif key in ("precision", "recall"):
        good = value is None or (number and 0 < value <= 1)
        expected = "a number above 0, at most 1"
    elif key == "always_include":
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        expected = "a list of tool ids"
        value = tuple(value) if good else value
    else:
        good, expected = isinstance(value, str), "text"
    if not good:
        raise InvalidConfig(f"{path}: {key} is {value!r}; expected {expected}")
    return value
