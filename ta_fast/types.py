"""The words of the project: frozen data, no behaviour beyond reading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ta_fast_kernels import TopK

if TYPE_CHECKING:
    from ta_fast.session import Session

Json: TypeAlias = Any
JsonObject: TypeAlias = Mapping[str, Any]
F32: TypeAlias = NDArray[np.float32]
I32: TypeAlias = NDArray[np.int32]
U32: TypeAlias = NDArray[np.uint32]

__all__ = [
    "F32",
    "I32",
    "U32",
    "AcceptedCall",
    "CatalogChange",
    "Json",
    "JsonObject",
    "PromotedTool",
    "Promotion",
    "Rejection",
    "RejectionReason",
    "Source",
    "Tool",
    "ToolCall",
    "ToolSchema",
    "TopK",
    "Turn",
    "Verdict",
]

EMPTY: JsonObject = MappingProxyType({})

# A frozen dataclass takes three to four times as long to make, as it sets its fields one by one
# through object.__setattr__: a sixth of all that the service's turn costs. So those of which a
# turn makes many are not frozen, only treated so.

DEFAULT_TOP_K = 10
"""Tools promoted a turn; the paper's default."""
DEFAULT_THRESHOLD = 0.28
"""Least cosine of a promoted tool; the paper's default for all-MiniLM-L6-v2."""

RejectionReason: TypeAlias = Literal["unknown_tool", "tool_not_promoted", "invalid_arguments"]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool as its source defines it.

    ``id`` is unique in a catalog; tools of MCP servers have ``server__name``.
    ``summary``, ``precondition`` and ``provides`` are the operator's: None or empty
    where nothing was said. ``provides`` names the facts that a successful call sets;
    ``seen:<id>`` is always among them without being written.
    """

    id: str
    name: str
    description: str = ""
    input_schema: JsonObject = field(default_factory=lambda: EMPTY)
    server: str = ""
    annotations: JsonObject = field(default_factory=lambda: EMPTY)
    summary: str | None = None
    precondition: JsonObject | None = None
    provides: tuple[str, ...] = ()


@dataclass(slots=True, unsafe_hash=True)
class Turn:
    """One turn of an agent: what it wants, and what its state allows.

    Its state is ``facts`` together with those of ``session``, which are read again
    when the model's calls are checked. ``context`` is an optional rolling summary of
    the conversation, embedded together with the intent.
    """

    intent: str
    facts: frozenset[str] = frozenset()
    session: Session | None = None
    top_k: int = DEFAULT_TOP_K
    threshold: float = DEFAULT_THRESHOLD
    context: str = ""

    def current_facts(self) -> frozenset[str]:
        """The facts that hold now."""
        facts = frozenset(self.facts)
        return facts | self.session.facts if self.session else facts


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """The full definition of one tool, as it is sent to a model.

    ``wire_name`` is the name under which the model calls it; ``tokens`` is the cl100k_base
    count of its compact MCP JSON.
    """

    id: str
    wire_name: str
    server: str
    name: str
    description: str
    input_schema: JsonObject
    tokens: int


@dataclass(slots=True, unsafe_hash=True)
class PromotedTool:
    """A tool that one turn may call.

    ``score`` is what ranked it, None if it is only pinned or kept from an earlier turn of the
    session. ``probability`` is that of its being right, None without a calibration or a score.
    ``delivered``: an earlier turn of the session was given its definition.
    """

    schema: ToolSchema
    score: float | None
    pinned: bool
    probability: float | None = None
    delivered: bool = False

    @property
    def id(self) -> str:
        """The tool's id."""
        return self.schema.id


@dataclass(slots=True, unsafe_hash=True)
class Promotion:
    """What one turn may call, and how it was decided.

    ``handle`` names the promotion to a client (it is not authentication). ``epoch``
    is that of the catalog snapshot. Durations in ``seconds`` are by stage. ``fit`` is the
    probability that some allowed tool fits the turn, None without a calibration; where it
    was too low the turn ``abstained``, and only pinned tools are promoted.
    """

    handle: str
    turn: Turn
    epoch: int
    tools: tuple[PromotedTool, ...]
    allowed: int
    gated: int
    pool_tokens: int
    schema_tokens: int
    seconds: Mapping[str, float]
    fit: float | None = None
    abstained: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the promoted tools, in the order of promotion."""
        return tuple(tool.id for tool in self.tools)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made: its id, the name it used, its arguments."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class AcceptedCall:
    """A call that may be executed: the model's call and the catalog's tool."""

    call: ToolCall
    tool_id: str
    server: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that must not be executed, told so that the model can recover.

    ``available`` are wire names that this turn may call. A tool that the state
    forbids is answered exactly like one that does not exist.
    """

    call_id: str
    reason: RejectionReason
    message: str
    available: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer to a model's calls; every call is in exactly one list."""

    accepted: tuple[AcceptedCall, ...]
    rejected: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What an ingest did, by tool id, and the epoch after it."""

    epoch: int
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.updated or self.removed)


@dataclass(frozen=True, slots=True)
class Source:
    """Tools that one source defines; ingesting a source again replaces them.

    ``name`` identifies the source in the catalog (``mcp:<server>`` or a file's path).
    """

    name: str
    tools: Sequence[Tool]
