"""How the report writes figures, and what the paper claims."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from bench.report import MISSING

Row: TypeAlias = Mapping[str, Any]
# Tool tokens a turn, utilisation at turn 30, and what the paper itself projects.
PAPER = {
    "B1": ("47,312", "0.24", "72.1 %, 4.18 s, $0.213"),
    "B2": ("11,865", "0.56", "57.6 %, 3.77 s, $0.089"),
    "B3": ("4,082", "0.78", "81.4 %, 2.15 s, $0.041"),
    "B4": ("480", "0.94", "88.0 %, 2.40 s, $0.029"),
    "Tool Attention": ("2,368", "0.91", "94.2 %, 2.01 s, $0.030"),
}
NAMES = {
    "B1": "B1 all schemas",
    "B2": "B2 static, 30 tools",
    "B3": "B3 top 10, no gate",
    "B4": "B4 command line, lazy",
}


def threshold(value: float) -> str:
    """A threshold, or that there is none."""
    return f"threshold {value:.2f}" if value > 0 else "no threshold"


def count(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def share(value: float) -> str:
    """A percentage."""
    return f"{value:.1%}".replace("%", " %")


def figure(value: float | None) -> str:
    """Three digits after the point, or that it was not measured."""
    return MISSING if value is None else f"{value:.3f}"


def both(one: float, other: float) -> str:
    """Two figures: with the default threshold, and with none."""
    return f"{figure(one)} / {figure(other)}"
