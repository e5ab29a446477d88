import jsonschema_rs
import pytest

from ta_fast.serve.bodies import RouteBody
from ta_fast.serve.operations import OPERATIONS, find
from tests.serve.service import Client, client

TURN = {"intent": "send an email", "threshold": -1}
GOOD = {
    "/v1/route": {"turns": [TURN, {"intent": " "}], "form": "openai"},
    "/v1/check": {
        "handle": "HANDLE",
        "calls": [{"id": "1", "name": "mail__read"}, {"id": "2", "name": "x"}],
    },
    "/v1/succeeded": {"handle": "HANDLE", "tool": "mail__read"},
    "/v1/sessions/{id}": {"grant": ["scope:repo:a"]},
    "/v1/catalog/reload": {},
}


def described(call: Client) -> dict:
    """The document."""
    return call("GET", "/openapi.json").json()


def check(document: dict, operation: dict, answer: object) -> None:
    """The answer's status is described, and its body has the schema."""
    expected = operation["responses"][str(answer.status_code)]
    content = expected.get("content", {})
    if "schema" in content.get("application/json", {}):
        schema = {**content["application/json"]["schema"], "components": document["components"]}
        jsonschema_rs.validate(schema, answer.json())
    elif not content:
        assert answer.content == b""


def test_the_document_describes_every_operation() -> None:
    """No more and no fewer, each reachable under its path and method."""
    with client() as call:
        document = described(call)
    found = {(m.upper(), p) for p, methods in document["paths"].items() for m in methods}
    assert found == {(op.method, op.path) for op in OPERATIONS}
    for operation in OPERATIONS:
        assert find(operation.path.replace("{id}", "x"))[0][operation.method] is operation
    jsonschema_rs.meta.validate(document["components"]["schemas"][RouteBody.__name__])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_good_and_bad_requests_are_answered_as_described(operation: object) -> None:
    """With a key and without, as described and not."""
    with client() as call:
        document = described(call)
        about = document["paths"][operation.path][operation.method.lower()]
        handle = call.route(TURN)[0]["promotion"]["handle"]
        path = operation.path.replace("{id}", "s")
        body = GOOD[operation.path] if operation.body else None
        if body and "handle" in body:
            body = {**body, "handle": handle}
        good = call(operation.method, path, body)
        assert good.status_code in (200, 204), good.text
        check(document, about, good)
        if not operation.public:
            check(document, about, call(operation.method, path, body, bearer="nobody"))
        if operation.body:
            for content in (b"{", b"[]", b'{"nothing": 1}', b"x" * (5 << 20)):
                check(document, about, call(operation.method, path, content=content))


@pytest.mark.parametrize(
    "body",
    [
        {"turns": [{"intent": "a", "top_k": 0}]},
        {"turns": [{"intent": "a", "threshold": 2}]},
        {"turns": [{"intent": "a", "facts": [""]}]},
        {"turns": [{"intent": "a"}] * 1001},
        {"turns": [TURN], "form": "xml"},
        {"turns": [TURN], "timeout": 0},
        {"turn": TURN},
    ],
)
def test_the_schema_refuses_what_the_service_refuses(body: dict) -> None:
    """One type makes both."""
    with client() as call:
        schemas = described(call)["components"]
        schema = {"$ref": "#/components/schemas/RouteBody", "components": schemas}
        assert not jsonschema_rs.is_valid(schema, body)
        assert call("POST", "/v1/route", body).status_code == 422
