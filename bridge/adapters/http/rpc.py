"""``POST /rpc/{method}``: the table of `bridge.domain.methods` over HTTP."""

from starlette.requests import Request
from starlette.responses import Response

from bridge.adapters.http import documents as d
from bridge.adapters.http.calls import JSON, Calls, body_of, idempotency_key
from bridge.adapters.http.router import Routes
from bridge.adapters.http.rpc_schemas import described
from bridge.adapters.http.schemas import Bodies, an_object
from bridge.domain.intake import answer

ERRORS = (*d.WITH_TOKEN, 404, 409, 429)


def rpc_routes(calls: Calls, bodies: Bodies) -> Routes:
    """Return a route for each method that can be described, and one for all others."""
    routes = Routes("rpc")

    async def call(request: Request) -> Response:
        method = request.scope["path"].rpartition("/")[2]
        asker, params = await calls.asker(request), await body_of(request)
        result = await calls.call(
            asker,
            method,
            params,
            organization=calls.organization(asker, request.query_params.get("organizationId")),
            key=idempotency_key(request),
            strict=True,
        )
        return Response(answer(result), media_type=JSON)

    for method, (params, result) in described(bodies).items():
        said = d.document(
            f"Call {method}: the body is its parameters",
            body=params,
            answer=an_object({"result": result}, ["result"]),
            errors=ERRORS,
            parameters=[d.ORGANIZATION_ID],
        )
        routes.add("POST", f"/rpc/{method}", call, said, method)
    routes.add("POST", "/rpc/{method}", call)
    return routes
