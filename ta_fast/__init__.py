"""Gated attention over tools: which tools may this turn see and call."""

from ta_fast.attention import ToolAttention
from ta_fast.catalog import Catalog
from ta_fast.encoder import make_encoder
from ta_fast.errors import TaFastError
from ta_fast.session import Session
from ta_fast.types import Promotion, Tool, ToolCall, Turn, Verdict

__all__ = [
    "Catalog",
    "Promotion",
    "Session",
    "TaFastError",
    "Tool",
    "ToolAttention",
    "ToolCall",
    "Turn",
    "Verdict",
    "make_encoder",
]
