import pytest

from ta_fast.serve.trace import Spans
from tests.serve.service import client

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def test_a_request_is_a_span_of_its_trace() -> None:
    """Child of the caller's span, with the id that the answer names; without one, a root."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with client() as call:
        call.service.spans = Spans(provider.get_tracer("test"))
        parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        answer = call("POST", "/v1/route", {"turns": [{"intent": "send"}]}, headers=parent)
        call("GET", "/healthz")
    child, root = exporter.get_finished_spans()
    assert child.name == "POST /v1/route"
    assert f"{child.context.trace_id:032x}" == TRACE
    assert f"{child.parent.span_id:016x}" == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{child.context.span_id:016x}-01"
    assert root.parent is None
