"""W3C trace context, and OpenTelemetry spans for those who want them.

A request's ``traceparent`` is continued, or a new trace is begun; the answer's names the
trace and this service's own span (https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from random import getrandbits
from typing import TYPE_CHECKING, NamedTuple

from ta_fast.errors import BackendUnavailable

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

# A later version may add fields; version ff and all-zero ids are invalid.
_PARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_LENGTH = 55


class Trace(NamedTuple):
    """Where a request belongs: its trace, its parent there, this service's span."""

    trace: bytes
    parent: bytes | None
    span: bytes
    flags: bytes

    @property
    def header(self) -> bytes:
        """The ``traceparent`` of the answer."""
        return b"-".join((b"00", self.trace, self.span, self.flags))


def read_trace(traceparent: bytes | None) -> Trace:
    """Continue the request's trace, or begin one."""
    # Not urandom: a system call lets go of the interpreter's lock, and waits to have it back.
    span = b"%016x" % getrandbits(64)
    if traceparent is not None:
        found = _PARENT.fullmatch(traceparent)
        # Only version 00 has no more fields.
        if found is not None and (len(traceparent) == _LENGTH or traceparent[:2] != b"00"):
            return Trace(found[1], found[2], span, found[3])
    return Trace(b"%032x" % getrandbits(128), None, span, b"00")


class Spans:
    """Makes an OpenTelemetry span of every request."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def span(self, name: str, trace: Trace) -> Iterator[Trace]:
        """A server span; gives the trace with the span's own id."""
        from opentelemetry import trace as otel
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = None
        if trace.parent is not None:
            parent = b"-".join((b"00", trace.trace, trace.parent, trace.flags)).decode()
            context = TraceContextTextMapPropagator().extract({"traceparent": parent})
        kind = otel.SpanKind.SERVER
        with self._tracer.start_as_current_span(name, context=context, kind=kind) as span:
            made = span.get_span_context()
            yield Trace(
                otel.format_trace_id(made.trace_id).encode(),
                trace.parent,
                otel.format_span_id(made.span_id).encode(),
                b"%02x" % made.trace_flags,
            )


def otlp_spans() -> Spans:
    """Spans that are sent by OTLP, where the ``OTEL_*`` environment says.

    Raises:
        BackendUnavailable: the SDK is absent.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BackendUnavailable(
            "spans need OpenTelemetry's SDK; install it with: pip install 'ta-fast[otel]'"
        ) from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider.get_tracer("ta_fast"))
