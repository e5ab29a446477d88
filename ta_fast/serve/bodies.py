"""Requests and answers as JSON: types that check, describe and write themselves.

``msgspec`` checks a request against its type while it is read, in a fifth of the time that
``json`` takes to read it unchecked, and gives the JSON Schema of the same type.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ta_fast.gate import MAX_FACT_LENGTH
from ta_fast.prompt import Delivery, Form, Prompt
from ta_fast.serve.errors import ErrorBody
from ta_fast.sessions import MAX_FACTS
from ta_fast.types import Promotion, RejectionReason, ToolCall

MAX_TURNS = 1000
MAX_TOP_K = 256
MAX_CALLS = 64
MAX_NAME = 256

Fact = Annotated[str, Meta(min_length=1, max_length=MAX_FACT_LENGTH)]
Facts = Annotated[list[Fact], Meta(max_length=MAX_FACTS)]
Name = Annotated[str, Meta(max_length=MAX_NAME)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a client sends; a field that is not known is refused, as it is most likely a typo."""


class TurnBody(Body, frozen=True):
    """One turn: what the agent wants, and what its state allows."""

    intent: str
    context: str = ""
    session: Name = ""
    facts: Facts = []
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    threshold: Annotated[float, Meta(ge=-1, le=1)] | None = None


class RouteBody(Body, frozen=True):
    """Turns of one tenant, against one catalog.

    ``timeout`` is in seconds. With a ``form`` every promotion has its prompt in that
    provider's JSON, by the ``delivery`` chosen.
    """

    turns: Annotated[list[TurnBody], Meta(min_length=1, max_length=MAX_TURNS)]
    catalog: Name = ""
    timeout: Annotated[float, Meta(gt=0, le=3600)] | None = None
    form: Form | None = None
    delivery: Delivery = "filter"


class CallBody(Body, frozen=True):
    """A call that the model made, by the tool's name in the prompt."""

    id: str
    name: str
    arguments: Any = {}


class CheckBody(Body, frozen=True):
    """The model's calls: ``calls``, or its ``answer`` in a provider's ``form``."""

    handle: Name
    catalog: Name = ""
    calls: Annotated[list[CallBody], Meta(max_length=MAX_CALLS)] | None = None
    answer: dict[str, Any] | list[dict[str, Any]] | None = None
    form: Form | None = None
    delivery: Delivery = "filter"


class SucceededBody(Body, frozen=True):
    """A promoted tool was called and succeeded."""

    handle: Name
    tool: str
    catalog: Name = ""


class SessionBody(Body, frozen=True):
    """A change of a session's facts; each milestone reached is a fact ``milestone:<name>``."""

    grant: Facts = []
    revoke: Facts = []
    reach: Facts = []


class ReloadBody(Body, frozen=True):
    """Which catalog to read again."""

    catalog: Name = ""


class ToolAnswer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A promoted tool; what is null or false is left out.

    ``name`` is that in the prompt, ``tokens`` what its schema takes. ``delivered``: an earlier
    turn of the session was given it. It has no ``score`` if it is only pinned or kept.
    """

    id: str
    name: str
    server: str
    tokens: int
    score: float | None = None
    probability: float | None = None
    pinned: bool = False
    delivered: bool = False


class PromptAnswer(msgspec.Struct, frozen=True):
    """Parts of a request to a model, for this turn; the stable pool is that of ``/v1/tools``.

    ``tokens`` are of all three.
    """

    tools: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    tokens: int


class PromotionAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a turn may call.

    ``allowed`` and ``gated`` count the tools that its state allows and keeps out;
    ``seconds`` are of the stages of its batch.
    """

    handle: str
    epoch: int
    tools: list[ToolAnswer]
    allowed: int
    gated: int
    pool_tokens: int
    schema_tokens: int
    seconds: dict[str, float]
    abstained: bool
    fit: float | None
    prompt: PromptAnswer | UnsetType = UNSET


class TurnAnswer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A turn's promotion, or why it has none."""

    promotion: PromotionAnswer | UnsetType = UNSET
    error: ErrorBody | UnsetType = UNSET


class RouteAnswer(msgspec.Struct, frozen=True):
    """One result for each turn, in order.

    If the only turn of a request fails, its error is the answer.
    """

    results: list[TurnAnswer]


class AcceptedAnswer(msgspec.Struct, frozen=True):
    """A call that may be executed, with the tool's own server and name."""

    id: str
    tool: str
    server: str
    name: str
    arguments: dict[str, Any]


class RejectedAnswer(msgspec.Struct, frozen=True):
    """A call that must not be; ``result`` tells the model so, in the provider's form."""

    id: str
    reason: RejectionReason
    message: str
    available: list[str]
    result: dict[str, Any] | UnsetType = UNSET


class CheckAnswer(msgspec.Struct, frozen=True):
    """Every call is in one of the two."""

    accepted: list[AcceptedAnswer]
    rejected: list[RejectedAnswer]


class FactsAnswer(msgspec.Struct, frozen=True):
    """Facts, sorted."""

    facts: list[str]


class ToolsAnswer(msgspec.Struct, frozen=True):
    """What the state allows: ids in catalog order, and the summary pool for the prompt."""

    epoch: int
    ids: list[str]
    pool: str


class EpochAnswer(msgspec.Struct, frozen=True):
    """The catalog's epoch."""

    epoch: int


class HealthAnswer(msgspec.Struct, frozen=True):
    """The service's state, and for how many seconds turns have made no progress."""

    state: str
    stalled: float


def promotion_answer(promotion: Promotion, prompt: Prompt | None) -> PromotionAnswer:
    """A promotion as JSON."""
    return PromotionAnswer(
        promotion.handle,
        promotion.epoch,
        [
            ToolAnswer(
                tool.schema.id,
                tool.schema.wire_name,
                tool.schema.server,
                tool.schema.tokens,
                tool.score,
                tool.probability,
                tool.pinned,
                tool.delivered,
            )
            for tool in promotion.tools
        ],
        promotion.allowed,
        promotion.gated,
        promotion.pool_tokens,
        promotion.schema_tokens,
        dict(promotion.seconds),
        promotion.abstained,
        promotion.fit,
        UNSET if prompt is None else PromptAnswer(prompt.tools, prompt.messages, prompt.tokens),
    )


def tool_call(call: CallBody) -> ToolCall:
    """A call as ta_fast has it."""
    return ToolCall(call.id, call.name, call.arguments)
