"""Tokens for development and tests: whoever asks is believed. The settings keep it to loopback."""

import base64
import binascii
import secrets
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt

from bridge.adapters.http.tokens import SCOPE
from bridge.domain.ids import is_id, is_organization
from bridge.errors import Refusal
from bridge.settings import Auth

ACCESS_SECONDS = 3600
REFRESH_SECONDS = 86_400
MAXIMUM_FIELDS = 32
FIELDS = ("grant_type", "username", "password", "client_id", "refresh_token", "organization")


class TokenIssuer:
    """Answers ``POST /security/oauth/token`` (RFC 6749, 4.3, 4.4 and 6).

    Args:
        auth: the settings, with ``token_endpoint``.
        organization: of the tokens whose request names none.
    """

    def __init__(self, auth: Auth, organization: str) -> None:
        self._auth = auth
        self._organization = organization
        # With mode = "none" nobody checks the signature.
        self._key = auth.secret.get_secret_value().encode() or secrets.token_bytes(32)
        self._algorithm = auth.algorithms[0] if auth.mode == "jwt" else "HS256"
        # A key of its own: a refresh token never passes for an access token. It ends with the process.
        self._refresh_key = secrets.token_bytes(32)

    def issue(self, body: bytes, query: str = "", authorization: str | None = None) -> dict[str, str | int]:
        """Return ``{access_token, refresh_token, expires_in, sub, token_type}``; ``expires_in`` in seconds.

        Args:
            body: the form: ``grant_type`` with ``username`` and ``password`` (any), ``client_id``, or
                ``refresh_token``; ``organization`` may name another than the default.
            query: the query string, whose fields count where the form lacks them.
            authorization: the header of that name; a ``Basic`` one may name the client.

        Raises:
            Refusal: ``invalid_params``, a field is missing or wrong; ``unauthorized``, a refresh token does not count.
        """
        fields = _fields(query) | _fields(body.decode("utf-8", "replace"))
        match fields.get("grant_type"):
            case "password":
                _required(fields, "password")
                return self._tokens(_subject(fields, "username"), self._named_organization(fields), [])
            case "client_credentials":
                roles = [self._auth.service_role, self._auth.ops_role]
                client = _subject(_basic(authorization) | fields, "client_id")
                return self._tokens(client, self._named_organization(fields), roles)
            case "refresh_token":
                claims = self._refreshed(_required(fields, "refresh_token"))
                return self._tokens(claims["sub"], claims["organization_id"], claims["roles"])
        raise Refusal(
            "invalid_params", "grant_type is missing or unknown: use password, client_credentials or refresh_token"
        )

    def _tokens(self, subject: str, organization: str, roles: list[str]) -> dict[str, str | int]:
        auth = self._auth
        now = int(datetime.now(UTC).timestamp())  # noqa: TID251 - PyJWT checks tokens by this clock
        claims: dict[str, Any] = {"sub": subject, "organization_id": organization, "roles": roles}
        access = claims | {"scope": SCOPE, "iat": now, "exp": now + ACCESS_SECONDS, "jti": secrets.token_hex(8)}
        access |= {name: value for name, value in (("aud", auth.audience), ("iss", auth.issuer)) if value}
        refresh = claims | {"exp": now + REFRESH_SECONDS}
        return {
            "access_token": jwt.encode(access, self._key, self._algorithm),
            "refresh_token": jwt.encode(refresh, self._refresh_key, "HS256"),
            "expires_in": ACCESS_SECONDS,
            "sub": subject,
            "token_type": "bearer",
        }

    def _refreshed(self, token: str) -> dict[str, Any]:
        try:
            return jwt.decode(token, self._refresh_key, algorithms=["HS256"])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Refusal(
                "unauthorized", "refresh_token has expired, or is of another bridge or an earlier start: log in again"
            ) from None

    def _named_organization(self, fields: dict[str, str]) -> str:
        organization = fields.get("organization", self._organization)
        if not is_organization(organization):
            raise Refusal("invalid_params", "organization cannot name one: use 1..64 of A-Z a-z 0-9 . _ -")
        return organization


def _fields(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAXIMUM_FIELDS)
    except ValueError:
        raise Refusal("invalid_params", f"form: has more than {MAXIMUM_FIELDS} fields, send fewer") from None
    names = [name for name, _ in pairs]
    for name in FIELDS:
        if names.count(name) > 1:
            raise Refusal("invalid_params", f"{name} is there twice: send it once")
    return dict(pairs)


def _required(fields: dict[str, str], name: str) -> str:
    if value := fields.get(name):
        return value
    raise Refusal("invalid_params", f"{name} is missing: send it as a field of the form")


def _subject(fields: dict[str, str], name: str) -> str:
    subject = _required(fields, name)
    if not is_id(subject):
        raise Refusal("invalid_params", f"{name} is not a safe id: use 1..128 characters without + # / or controls")
    return subject


def _basic(authorization: str | None) -> dict[str, str]:
    """The client that a ``Basic`` header names (RFC 6749, 2.3.1); its password is not looked at."""
    scheme, _, credentials = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return {}
    try:
        client = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        raise Refusal("invalid_params", "the header Authorization is not Basic <base64 of client:password>") from None
    return {"client_id": unquote_plus(client)}
