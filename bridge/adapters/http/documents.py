"""What ``/openapi.json`` says of the calls: schemas, examples, and every error that a call may answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bridge.adapters.http.calls import LONGEST_IDEMPOTENCY_KEY
from bridge.adapters.http.problems import GONE, KINDS, PROBLEM
from bridge.adapters.http.schemas import ENDPOINT_ID, ORGANIZATION, TEXT, USER, Schema

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": list(KINDS)},
        "detail": {"type": "string", "description": "Names the field and the remedy."},
        "errno": {"type": "integer", "description": "Of /rooms: says more than the code."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": TEXT, "reason": TEXT},
            },
        },
    },
}

# Of the whole document, where tokens are checked.
SECURITY: Schema = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}

# What the gate may answer to any call, and what any call that needs a token may.
EVERYWHERE = (413, 415, 500, 503)
WITH_TOKEN = (400, 401, 403)


def document(
    summary: str,
    *,
    body: Schema | None = None,
    form: bool = False,
    answer: Schema | None = None,
    errors: Sequence[int] = (),
    parameters: Sequence[Schema] = (),
    status: int = 200,
) -> Schema:
    """Return the operation of a route: what it takes and answers.

    Args:
        summary: one line.
        body: schema of the JSON body, None where there is none.
        form: the body is a form instead.
        answer: schema of the answer, None where it is empty.
        errors: statuses of refusals beyond `EVERYWHERE`.
        parameters: of path and query.
        status: of the answer.
    """
    operation: Schema = {"summary": summary}
    if parameters:
        operation["parameters"] = list(parameters)
    if 401 not in errors or form:
        operation["security"] = []  # what `SECURITY` says of all calls does not hold for this one
    if body is not None:
        media = "application/x-www-form-urlencoded" if form else "application/json"
        # One that may be an object or an array must be there if the object has fields that must.
        shapes = body.get("anyOf", [body])
        operation["requestBody"] = {"required": bool(shapes[0].get("required")), "content": {media: {"schema": body}}}
    done: dict[str, Any] = {"description": "Done"}
    if answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
    failures = {code: _failure(code) for code in sorted({*errors, *EVERYWHERE})}
    return {**operation, "responses": {status: done, **failures}}


def api(paths: Mapping[str, Mapping[str, Schema]], version: str, *, checks_tokens: bool) -> bytes:
    """Return the document (OpenAPI 3.1), as JSON.

    Args:
        paths: path -> method -> operation.
        version: of the bridge.
        checks_tokens: whether a caller must show one.
    """
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "Endpoint Bridge", "version": version},
        "paths": paths,
    }
    if checks_tokens:
        document |= {"components": {"securitySchemes": SECURITY}, "security": [dict.fromkeys(SECURITY, ())]}
    return msgspec.json.encode(document)


def query(name: str, schema: Schema, description: str) -> Schema:
    """Return a parameter of the query string."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def in_path(name: str, schema: Schema) -> Schema:
    """Return a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _failure(status: int) -> dict[str, Any]:
    codes = [code for code, kind in KINDS.items() if kind.status == status] or ["not_found"]
    kind = GONE if status == GONE.status else KINDS[codes[0]]
    example: Mapping[str, Any] = {
        "type": "about:blank",
        "title": kind.title,
        "status": status,
        "code": codes[0],
        "detail": "what is wrong, and what to do about it",
    }
    headers: dict[str, Any] = {}
    if status == 503:
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "Seconds."}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": TEXT}
    return {
        "description": f"{kind.title}: {', '.join(codes)}",
        "headers": headers,
        "content": {PROBLEM: {"schema": PROBLEM_SCHEMA, "example": example}},
    }


ENDPOINT_IN_PATH = in_path("endpoint", ENDPOINT_ID)
USER_ID = query("userId", USER, "Whose endpoints; users leave it out.")
ORGANIZATION_ID = query("organizationId", ORGANIZATION, "Of a service: which organization is meant.")
WANTS_OUTCOMES = query("outcomes", {"type": "boolean", "default": False}, "Whether each copy's outcome is answered.")
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "maxLength": LONGEST_IDEMPOTENCY_KEY},
    "description": "What a repetition is known by, for ten minutes.",
}
