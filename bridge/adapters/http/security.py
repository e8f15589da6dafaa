"""``POST /security/oauth/token`` (RFC 6749), for development and tests."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from bridge.adapters.http import documents as d
from bridge.adapters.http.issuer import TokenIssuer

FORM: d.Schema = {
    "type": "object",
    "properties": {
        "grant_type": {"type": "string", "enum": ["password", "client_credentials", "refresh_token"]},
        "username": {"type": "string"},
        "password": {"type": "string"},
        "client_id": {"type": "string"},
        "refresh_token": {"type": "string"},
        "organization": {"type": "string"},
    },
    "example": {"grant_type": "password", "username": "ann", "password": "any"},
}


def security_routes(issuer: TokenIssuer) -> APIRouter:
    """Return the one route."""
    routes = APIRouter(tags=["security"])

    @routes.post(
        "/security/oauth/token",
        **d.document("Get a token", body=FORM, form=True, answer=d.TOKENS, errors=(400, 401)),
    )
    async def token(request: Request) -> Response:
        body, authorization = await request.body(), request.headers.get("authorization")
        tokens = issuer.issue(body, request.url.query, authorization)
        return JSONResponse(tokens, headers={"Cache-Control": "no-store"})

    return routes
