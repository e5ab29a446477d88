"""The OpenAPI 3.1 document, made of the table of operations and the types of their bodies."""

from __future__ import annotations

from functools import cache
from inspect import cleandoc
from typing import Any

import msgspec

from ta_fast.serve.errors import STATUSES, ErrorAnswer
from ta_fast.serve.operations import OPERATIONS, Operation, Parameter, Struct

MEANINGS = {200: "Done", 204: "Done", 304: "As the client has it", 503: STATUSES[503]}


@cache
def openapi_json() -> bytes:
    """The document."""
    schemas, components = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method.lower()] = _operation(operation, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "ta_fast", "version": "1", "description": "Gated attention over tools."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(document)


def _schemas() -> tuple[dict[Struct, Any], dict[str, Any]]:
    described = [t for op in OPERATIONS for t in (op.body, *op.answers.values())]
    types = list(dict.fromkeys(t for t in (*described, ErrorAnswer) if isinstance(t, type)))
    references, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    for component in components.values():
        component["description"] = cleandoc(component.get("description", ""))
    return dict(zip(types, references, strict=True)), components


def _operation(operation: Operation, schemas: dict[Struct, Any]) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status in operation.statuses:
        answers[str(status)] = {
            "description": STATUSES[status],
            "content": {"application/json": {"schema": schemas[ErrorAnswer]}},
        }
    for status, body in operation.answers.items():
        answers[str(status)] = {"description": MEANINGS[status], **_content(body, schemas)}
    described: dict[str, Any] = {
        "operationId": operation.run.__name__,
        "summary": cleandoc(operation.run.__doc__ or ""),
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": answers,
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, **_content(operation.body, schemas)}
    if not operation.public:
        described["security"] = [{"key": []}]
    return described


def _content(body: Struct | str | None, schemas: dict[Struct, Any]) -> dict[str, Any]:
    if body is None:
        return {}
    if isinstance(body, str):
        return {"content": {body: {}}}
    return {"content": {"application/json": {"schema": schemas[body]}}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.text,
        "schema": {"type": "array", "items": text} if parameter.many else text,
    }
