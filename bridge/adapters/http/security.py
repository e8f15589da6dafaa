"""``POST /security/oauth/token`` (RFC 6749), for development and tests."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bridge.adapters.http import documents as d
from bridge.adapters.http.issuer import MAXIMUM_FIELDS, TokenIssuer
from bridge.adapters.http.router import Routes
from bridge.adapters.http.schemas import ID, ORGANIZATION, TOKENS, Schema, an_object

_SAID: Schema = {"type": "string", "minLength": 1}
_ORGANIZATION: Schema = {"organization": ORGANIZATION}
FORM: Schema = {
    "type": "object",
    "maxProperties": MAXIMUM_FIELDS,
    "anyOf": [
        an_object(
            {"grant_type": {"const": "password"}, "username": ID, "password": _SAID, **_ORGANIZATION},
            ["grant_type", "username", "password"],
        ),
        an_object(
            {"grant_type": {"const": "client_credentials"}, "client_id": ID, **_ORGANIZATION},
            ["grant_type", "client_id"],
        ),
        an_object({"grant_type": {"const": "refresh_token"}, "refresh_token": _SAID}, ["grant_type", "refresh_token"]),
    ],
    "example": {"grant_type": "password", "username": "ann", "password": "any"},
}


def security_routes(issuer: TokenIssuer) -> Routes:
    """Return the one route."""
    routes = Routes("security")

    @routes.on(
        "POST",
        "/security/oauth/token",
        d.document("Get a token", body=FORM, form=True, answer=TOKENS, errors=(400, 401)),
    )
    async def token(request: Request) -> Response:
        body, authorization = await request.body(), request.headers.get("authorization")
        tokens = issuer.issue(body, request.url.query, authorization)
        return JSONResponse(tokens, headers={"Cache-Control": "no-store"})

    return routes
