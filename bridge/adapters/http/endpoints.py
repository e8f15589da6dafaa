"""The endpoint registration API: register, keep alive, unregister, look, send.

Source: reference "endpoint API".
"""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from bridge.adapters.http import documents as d
from bridge.adapters.http import schemas as s
from bridge.adapters.http.calls import Asker, Calls, Fields, answered, fields_of, idempotency_key, params_of, text_of
from bridge.adapters.http.router import Routes
from bridge.adapters.http.schemas import Bodies
from bridge.errors import Refusal

REGISTRATION = ("keepAliveSeconds", "serverKeepAliveReminderOn", "userEndpointId", "userId", "kind", "watch")
SENDING = ("event", "userId", "userEndpointId", "qos", "masks")
TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def endpoint_routes(calls: Calls, bodies: Bodies) -> Routes:
    """Return the routes of ``/users/endpoints``."""
    routes = Routes("endpoints", "/users/endpoints")

    async def registered(request: Request) -> str:
        asker, fields = await calls.asker(request), await fields_of(request)
        params = _picked(fields, REGISTRATION)
        user = asker.claims.user
        if asker.claims.is_service and text_of(fields, "userId") is None and user is not None:
            params["userId"] = msgspec.Raw(msgspec.json.encode(user))  # it registers itself
        organization = calls.organization(asker, text_of(fields, "organizationId"))
        found: Any = await calls.call(
            asker,
            "register_endpoint",
            params_of(params),
            organization=organization,
            key=idempotency_key(request),
        )
        endpoint: str = found["id"]
        return endpoint

    on_registering = (*d.WITH_TOKEN, 409, 429)

    @routes.on(
        "POST", "", d.document("Register", body=bodies.registration, answer=s.ENDPOINT_ID, errors=on_registering)
    )
    async def register(request: Request) -> Response:
        return answered(await registered(request))

    @routes.on(
        "POST",
        "/register",
        d.document("Register", body=bodies.registration, answer=s.REGISTERED, errors=on_registering),
    )
    async def register_by_name(request: Request) -> Response:
        return answered({"id": await registered(request)})

    async def named(request: Request, method: str, *names: str) -> Response:
        asker, fields = await calls.asker(request), await fields_of(request)
        _check_user(asker, fields)
        organization = calls.organization(asker, text_of(fields, "organizationId"))
        await calls.call(asker, method, params_of(_picked(fields, names)), organization=organization)
        return Response(status_code=204)

    on_naming = (*d.WITH_TOKEN, 404)

    @routes.on("POST", "/keepalive", d.document("Keep alive", body=s.NAMED, errors=on_naming, status=204))
    async def keep_alive(request: Request) -> Response:
        return await named(request, "keepalive_endpoint", "userEndpointId")

    @routes.on("POST", "/unregister", d.document("Unregister", body=s.UNREGISTRATION, errors=on_naming, status=204))
    async def unregister(request: Request) -> Response:
        return await named(request, "unregister_endpoint", "userEndpointId", "reason")

    @routes.on(
        "POST",
        "/sendEvent",
        d.document(
            "Send an event to a user's endpoints, or to one",
            body=bodies.sending,
            answer=s.SENT,
            errors=(*on_naming, 409),
            parameters=[d.WANTS_OUTCOMES, d.IDEMPOTENCY_KEY],
        ),
    )
    async def send_event(request: Request) -> Response:
        asker, fields = await calls.asker(request), await fields_of(request)
        named = text_of(fields, "organizationId")
        if asker.claims.is_service and named is None:
            raise Refusal("invalid_params", "organizationId is missing: a service names whose user it means")
        params: dict[str, object] = {**_picked(fields, SENDING), "outcomes": _truth(request, "outcomes")}
        found = await calls.call(
            asker,
            "send_event",
            params_of(params),
            organization=calls.organization(asker, named),
            key=idempotency_key(request),
        )
        return answered(found)

    @routes.on(
        "GET",
        "",
        d.document(
            "List a user's endpoints",
            answer={"type": "array", "items": s.VIEW},
            errors=d.WITH_TOKEN,
            parameters=[d.USER_ID | {"required": bool(bodies.by_services)}, d.ORGANIZATION_ID],
        ),
    )
    async def list_endpoints(request: Request) -> Response:
        asker = await calls.asker(request)
        user = request.query_params.get("userId")
        params = params_of({} if user is None else {"userId": user})
        organization = calls.organization(asker, request.query_params.get("organizationId"))
        return answered(await calls.call(asker, "list_endpoints", params, organization=organization))

    @routes.on(
        "GET",
        "/{endpoint}",
        d.document("Look at one", answer=s.VIEW, errors=on_naming, parameters=[d.ENDPOINT_IN_PATH, d.ORGANIZATION_ID]),
    )
    async def view_endpoint(request: Request) -> Response:
        asker = await calls.asker(request)
        params = params_of({"userEndpointId": request.path_params["endpoint"]})
        organization = calls.organization(asker, request.query_params.get("organizationId"))
        return answered(await calls.call(asker, "view_endpoint", params, organization=organization))

    return routes


def _picked(fields: Fields, names: tuple[str, ...]) -> Fields:
    return {name: fields[name] for name in names if name in fields}


def _check_user(asker: Asker, fields: Fields) -> None:
    """A client may say who it is; it must be who the token says."""
    given = text_of(fields, "userId")
    if given is not None and not asker.claims.is_service and given != asker.claims.user:
        raise Refusal("forbidden", "userId is another user's: leave it out")


def _truth(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in TRUTHS:
        raise Refusal("invalid_params", f"{name} in the query is no truth value: write true or false")
    return TRUTHS[text]
