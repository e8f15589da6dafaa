"""``POST /rpc/{method}``: the table of `bridge.domain.methods` over HTTP."""

from typing import Any

from fastapi import APIRouter, Request, Response

from bridge.adapters.http import documents as d
from bridge.adapters.http.calls import JSON, Calls, body_of, idempotency_key
from bridge.domain.intake import answer
from bridge.domain.methods import METHODS

ERRORS = (*d.WITH_TOKEN, 404, 409, 429)
PARAMS: d.Schema = {"oneOf": [{"type": "object"}, {"type": "array"}]}
ANSWER: d.Schema = {"type": "object", "required": ["result"], "properties": {"result": {}}}
METHOD = d.in_path("method", {"type": "string", "enum": list(METHODS)})


def rpc_routes(calls: Calls) -> APIRouter:
    """Return the one route."""
    routes = APIRouter(tags=["rpc"])
    said: dict[str, Any] = d.document(
        "Call a method: the body is its parameters",
        body=PARAMS,
        answer=ANSWER,
        errors=ERRORS,
        parameters=[METHOD, d.ORGANIZATION_ID],
    )

    @routes.post("/rpc/{method}", **said)
    async def call(request: Request) -> Response:
        asker, params = await calls.asker(request), await body_of(request)
        result = await calls.call(
            asker,
            request.path_params["method"],
            params,
            organization=calls.organization(asker, request.query_params.get("organizationId")),
            key=idempotency_key(request),
            strict=True,
        )
        return Response(answer(result), media_type=JSON)

    return routes
