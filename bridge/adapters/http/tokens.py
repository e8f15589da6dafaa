"""Who calls: the claims of a bearer token (RFC 6750, RFC 7519), checked as the settings say.

What the token says of itself decides nothing: the algorithms come from the settings and from the type of the key, the
key from a table in which the token's ``kid`` is looked up (RFC 8725).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jwt

from bridge.adapters.http.keys import keys_of
from bridge.domain.ids import is_id, is_organization
from bridge.errors import Refusal
from bridge.settings import Auth

MAXIMUM_TOKEN_LENGTH = 16_384
SCOPE = "global"

FAULTS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "has expired: get a new one",
    jwt.ImmatureSignatureError: "is not valid yet (nbf, iat): compare the clocks",
    jwt.InvalidAudienceError: "is for another audience: aud must be the one of auth.audience",
    jwt.InvalidIssuerError: "is of another issuer: iss must be the one of auth.issuer",
    jwt.InvalidAlgorithmError: "is signed with an algorithm that its key or auth.algorithms do not allow",
    jwt.InvalidSignatureError: "is not signed with a key that is trusted here",
    jwt.InvalidKeyError: "is signed with a key that is too short",
}


class Claims(NamedTuple):
    """Who calls.

    Attributes:
        user: id of the user, a safe id; None only for services and ops.
        organization: of the token; None: the caller names it with the request. With ``mode = "jwt"`` only for services
            and ops.
        roles: all roles of the token.
        is_service: may act for others, and name their organization.
        is_ops: may call what is for operations.
    """

    user: str | None
    organization: str | None
    roles: frozenset[str]
    is_service: bool
    is_ops: bool


class Tokens:
    """Checks bearer tokens.

    Args:
        auth: the settings; key files are read at once.

    Raises:
        ConfigError: a key file cannot be used.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._keys = keys_of(auth) if auth.mode == "jwt" else None

    @property
    def are_checked(self) -> bool:
        """Whether a call without a token is nobody's; else it is a service's."""
        return self._keys is not None

    async def claims(self, authorization: str | None) -> Claims:
        """Return who calls.

        Args:
            authorization: the header of that name; None where there is none.

        Raises:
            Refusal: ``unauthorized``, no token or one that does not count; ``forbidden``, its scopes lack ``global``;
                ``unavailable``, no key could be read yet.
        """
        auth = self._auth
        if authorization is None:
            if self._keys is None:
                return Claims(None, None, frozenset((auth.service_role, auth.ops_role)), is_service=True, is_ops=True)
            raise Refusal("unauthorized", "no token: send the header Authorization: Bearer <token>")
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refusal("unauthorized", "the header Authorization holds no bearer token: send Bearer <token>")
        if len(token) > MAXIMUM_TOKEN_LENGTH:
            raise _unauthorized(f"is longer than {MAXIMUM_TOKEN_LENGTH} characters")
        payload = await self._checked(token.strip()) if self._keys else _read(_unverified, token.strip())
        return self._claims(payload)

    async def _checked(self, token: str) -> dict[str, Any]:
        assert self._keys is not None
        auth = self._auth
        header = _read(jwt.get_unverified_header, token)
        if header.get("alg") not in auth.algorithms:  # before a key is looked for, let alone fetched
            raise _unauthorized(FAULTS[jwt.InvalidAlgorithmError])
        key = await self._keys.find(header.get("kid"))
        if key is None:
            raise _unauthorized("names no key (kid) that is known here")
        return _read(
            lambda text: jwt.decode(
                text,
                key.material,
                algorithms=list(key.algorithms),
                audience=auth.audience or None,
                issuer=auth.issuer or None,
                leeway=auth.leeway_seconds,
                options={
                    "require": ["exp"],
                    "verify_aud": bool(auth.audience),
                    "enforce_minimum_key_length": True,
                },
            ),
            token,
        )

    def _claims(self, payload: dict[str, Any]) -> Claims:
        auth = self._auth
        if (scopes := _words(payload, "scope")) is not None and SCOPE not in scopes:
            raise Refusal("forbidden", f"the token's scope does not hold {SCOPE}: ask for a token that has it")
        roles = frozenset(_words(payload, "roles") or ())
        user = _name(payload, "sub", is_id)
        organization = _name(payload, "organization_id", is_organization)
        is_service, is_ops = auth.service_role in roles, auth.ops_role in roles
        if not (is_service or is_ops):
            if user is None:
                raise _unauthorized("has no sub, which names the user")
            if organization is None and auth.mode == "jwt":
                raise _unauthorized("has no organization_id")
        elif not is_service and organization is None and auth.mode == "jwt":
            user = None  # operations; a user is one of an organization
        return Claims(user, organization, roles, is_service, is_ops)


def _unverified(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _read(read: Callable[[str], dict[str, Any]], token: str) -> dict[str, Any]:
    try:
        return read(token)
    except jwt.MissingRequiredClaimError as error:
        raise _unauthorized(f"has no {error.claim}, which must be in it") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        # The last four: texts that only look like a token. Their messages may hold parts of it.
        raise _unauthorized(
            FAULTS.get(type(error), "cannot be read: it is not a JWT, or a claim has a wrong type")
        ) from None


def _words(payload: dict[str, Any], claim: str) -> list[str] | None:
    """A claim that is a list of words, or one text with spaces between them (RFC 8693, 4.2)."""
    match payload.get(claim):
        case None:
            return None
        case str(text):
            return text.split()
        case list(words) if all(isinstance(word, str) for word in words):
            return words
    raise Refusal("unauthorized", f"the token's {claim} is neither text nor a list of texts")


def _name(payload: dict[str, Any], claim: str, is_name: Callable[[str], bool]) -> str | None:
    name = payload.get(claim)
    if name is None:
        return None
    if not isinstance(name, str) or not is_name(name):
        raise Refusal("unauthorized", f"the token's {claim} cannot name anybody here: use a safe id (docs/protocol.md)")
    return name


def _unauthorized(fault: str) -> Refusal:
    return Refusal("unauthorized", f"the token {fault}")
