"""The error tree.

::

    TaFastError
    ├── InvalidConfig        a configuration file or option that cannot be used
    ├── InvalidTurn          422  a turn that cannot be routed
    ├── InvalidCatalog            tools, preconditions or a catalog file that cannot be used
    ├── UnknownTool          404  no such tool here: forbidden by the state and non-existent alike
    ├── ToolNotPromoted      409  the tool exists and is allowed, but was not promoted this turn
    ├── InvalidArguments     422  the arguments do not fit the tool's schema
    ├── Overloaded           429  the engine's queue is full
    ├── DeadlineExceeded     504  the turn's deadline has passed
    ├── BackendUnavailable   503  something needed is absent: says what, and how to install it
    └── SchemaUnavailable    502  the full schema of a promoted tool could not be loaded

The number is the HTTP status a gateway answers with. A message names the value
found and what was expected. This module imports nothing of ta_fast.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class TaFastError(Exception):
    """Base of every error that ta_fast raises on purpose."""

    status = 500


class InvalidConfig(TaFastError):
    """A configuration file or option that cannot be used."""

    status = 400


class InvalidTurn(TaFastError):
    """A turn that cannot be routed: empty intent, k <= 0, threshold outside [-1, 1], ..."""

    status = 422


class InvalidCatalog(TaFastError):
    """Tools, preconditions or a catalog file that cannot be used. Nothing was changed."""

    status = 400


class UnknownTool(TaFastError):
    """No such tool here. Deliberately the same for forbidden and non-existent tools."""

    status = 404


class ToolNotPromoted(TaFastError):
    """The tool exists and is allowed, but was not promoted this turn."""

    status = 409


class InvalidArguments(TaFastError):
    """The arguments of a call do not fit the tool's input schema."""

    status = 422


class Overloaded(TaFastError):
    """The engine's queue is full; try again in ``retry_after`` seconds."""

    status = 429
    retry_after = 1.0


class DeadlineExceeded(TaFastError):
    """The turn's deadline has passed."""

    status = 504


class BackendUnavailable(TaFastError):
    """A package, model or device that was asked for is absent; says how to install it."""

    status = 503


class SchemaUnavailable(TaFastError):
    """The full schema of a promoted tool could not be loaded."""

    status = 502


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` with the nearest known name, or nothing: the end of a message."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
