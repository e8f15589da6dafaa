"""What ``/openapi.json`` says of the calls: schemas, examples, and every error that a call may answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.adapters.http.problems import KINDS, PROBLEM

Schema = dict[str, Any]

_ENDPOINT_ID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9._~@-]{1,128}$",
    "description": "Id of an endpoint.",
}
_TEXT: Schema = {"type": "string"}
_ORGANIZATION: Schema = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_USER: Schema = {"type": "string", "minLength": 1, "maxLength": 128, "description": "Id of a user."}

PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": _TEXT,
        "title": _TEXT,
        "status": {"type": "integer"},
        "code": {"type": "string", "enum": list(KINDS)},
        "detail": {"type": "string", "description": "Names the field and the remedy."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": _TEXT, "reason": _TEXT},
            },
        },
    },
}

REGISTRATION: Schema = {
    "type": "object",
    "required": ["keepAliveSeconds"],
    "properties": {
        "keepAliveSeconds": {"type": "integer", "minimum": 1, "maximum": 86400},
        "serverKeepAliveReminderOn": {"type": "boolean", "default": False},
        "userEndpointId": _ENDPOINT_ID,
        "userId": _USER,
        "organizationId": _ORGANIZATION,
        "watch": {"type": "array", "items": _TEXT, "description": "Subjects like device:lamp, device:* or *."},
    },
    "example": {"keepAliveSeconds": 15, "serverKeepAliveReminderOn": True, "userEndpointId": "ann-phone"},
}
NAMED: Schema = {
    "type": "object",
    "required": ["userEndpointId"],
    "properties": {"userEndpointId": _ENDPOINT_ID},
    "example": {"userEndpointId": "ann-phone"},
}
UNREGISTRATION: Schema = {
    "type": "object",
    "required": ["userEndpointId"],
    "properties": {"userEndpointId": _ENDPOINT_ID, "reason": {"type": ["string", "null"]}},
    "example": {"userEndpointId": "ann-phone", "reason": "User logout"},
}
SENDING: Schema = {
    "type": "object",
    "required": ["event", "userId"],
    "properties": {
        "event": {
            "type": "object",
            "required": ["type", "timestamp"],
            "properties": {
                "type": {
                    "type": "string",
                    "pattern": "^[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*Event$",
                    "maxLength": 128,
                },
                "timestamp": {"type": "string", "format": "date-time"},
            },
        },
        "userId": _USER,
        "organizationId": _ORGANIZATION | {"description": "Services must name it."},
        "userEndpointId": _ENDPOINT_ID,
        "qos": {"type": "integer", "default": 0, "description": "1: at least once. All else: at most once."},
        "masks": {"type": "array", "items": _TEXT, "description": "JSONPath of what the audit stream hides."},
    },
    "example": {
        "event": {"type": "OrderPlacedEvent", "timestamp": "2011-12-03T10:15:30.123Z", "card": "4111"},
        "userId": "ann",
        "organizationId": "default",
        "qos": 1,
        "masks": ["$.card"],
    },
}
VIEW: Schema = {
    "type": "object",
    "required": ["id", "keepAliveSeconds", "organizationId", "state", "userId", "version"],
    "properties": {
        "id": _ENDPOINT_ID,
        "keepAliveSeconds": {"type": "integer"},
        "organizationId": _ORGANIZATION,
        "state": {"type": "string", "enum": ["HEALTHY", "SICK", "UNKNOWN"]},
        "userId": _USER,
        "version": {"type": "integer"},
    },
    "example": {
        "id": "ann-phone",
        "keepAliveSeconds": 15,
        "organizationId": "default",
        "state": "HEALTHY",
        "userId": "ann",
        "version": 1795314496805,
    },
}
OUTCOMES: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["userEndpointId", "outcome"],
        "properties": {
            "userEndpointId": _ENDPOINT_ID,
            "outcome": {"type": "string", "enum": ["acknowledged", "no_subscriber", "sent", "refused"]},
        },
    },
}
SENT: Schema = {"oneOf": [{"type": "integer", "minimum": 0}, OUTCOMES]}
TOKENS: Schema = {
    "type": "object",
    "required": ["access_token", "refresh_token", "expires_in", "sub", "token_type"],
    "properties": {
        "access_token": _TEXT,
        "refresh_token": _TEXT,
        "expires_in": {"type": "integer"},
        "sub": _TEXT,
        "token_type": _TEXT,
    },
}

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
) -> dict[str, Any]:
    """Return the keyword arguments of a route that tell what it takes and answers.

    Args:
        summary: one line.
        body: schema of the JSON body, None where there is none.
        form: the body is a form instead.
        answer: schema of the answer, None where it is empty.
        errors: statuses of refusals beyond `EVERYWHERE`.
        parameters: of path and query.
        status: of the answer.
    """
    extra: dict[str, Any] = {"parameters": list(parameters)} if parameters else {}
    if body is not None:
        media = "application/x-www-form-urlencoded" if form else "application/json"
        extra["requestBody"] = {"required": "required" in body, "content": {media: {"schema": body}}}
    done: dict[str, Any] = {"description": "Done"}
    if answer is not None:
        done["content"] = {"application/json": {"schema": answer}}
    failures = {code: _failure(code) for code in sorted({*errors, *EVERYWHERE})}
    return {
        "summary": summary,
        "status_code": status,
        "responses": {status: done, **failures},
        "openapi_extra": extra,
        "response_model": None,
    }


def query(name: str, schema: Schema, description: str) -> Schema:
    """Return a parameter of the query string."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def in_path(name: str, schema: Schema) -> Schema:
    """Return a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _failure(status: int) -> dict[str, Any]:
    codes = [code for code, kind in KINDS.items() if kind.status == status]
    kind = KINDS[codes[0]]
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
        headers["WWW-Authenticate"] = {"schema": _TEXT}
    return {
        "description": f"{kind.title}: {', '.join(codes)}",
        "headers": headers,
        "content": {PROBLEM: {"schema": PROBLEM_SCHEMA, "example": example}},
    }


ENDPOINT_IN_PATH = in_path("endpoint", _ENDPOINT_ID)
USER_ID = query("userId", _USER, "Whose endpoints; users leave it out.")
ORGANIZATION_ID = query("organizationId", _ORGANIZATION, "Of a service: which organization is meant.")
WANTS_OUTCOMES = query("outcomes", {"type": "boolean", "default": False}, "Whether each copy's outcome is answered.")
