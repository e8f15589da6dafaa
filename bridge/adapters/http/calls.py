"""A call: who asks, for which organization, with which parameters; and its way to the desk.

Source: reference "endpoint API", contract details 3, 4, 38.
"""

import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from bridge.adapters.http.tokens import Claims, Tokens
from bridge.desk import Desk
from bridge.domain.codec import read_document, read_json
from bridge.domain.commands import SERVICE, Caller, Command
from bridge.domain.ids import is_organization
from bridge.domain.methods import METHODS, Call, decode_call
from bridge.domain.rules import Rules
from bridge.errors import Refusal

Fields = dict[str, msgspec.Raw]

JSON = "application/json"
LONGEST_IDEMPOTENCY_KEY = 256

_decode_fields = msgspec.json.Decoder(Fields).decode


class Asker(NamedTuple):
    """Who calls.

    Attributes:
        claims: of its token.
        organization: its own; of a service that says nothing else, the one that is meant.
    """

    claims: Claims
    organization: str

    def caller(self) -> Caller:
        """Return as whom it gives commands.

        Raises:
            Refusal: ``forbidden``, it is neither a service nor a user.
        """
        if self.claims.is_service:
            return SERVICE
        if self.claims.user is None:
            raise Refusal("forbidden", "the token's roles let it only look: this needs a user or a service")
        return Caller(self.claims.user)

    def may_act_in(self, organization: str) -> bool:
        """Tell whether it may change anything there: a service may; operations may look, and act at home only."""
        return self.claims.is_service or organization == self.organization


class Calls:
    """Where calls are handed in: knows callers by their tokens and brings their commands to the desk.

    Args:
        tokens: checks who calls.
        desk: takes commands.
        rules: the configuration's numbers.
        default_organization: of those whose token names none.
    """

    def __init__(self, tokens: Tokens, desk: Desk, rules: Rules, default_organization: str) -> None:
        self._tokens = tokens
        self._desk = desk
        self._rules = rules
        self.default_organization = default_organization

    @property
    def needs_token(self) -> bool:
        """Whether who shows no token is nobody, and not a service."""
        return self._tokens.are_checked

    async def asker(self, request: Request) -> Asker:
        """Return who calls.

        Raises:
            Refusal: see `Tokens.claims`.
        """
        claims = await self._tokens.claims(request.headers.get("authorization"))
        return Asker(claims, claims.organization or self.default_organization)

    def organization(self, asker: Asker, named: str | None) -> str:
        """Return the organization that a call concerns; ``named``: by itself.

        Raises:
            Refusal: ``forbidden`` or ``invalid_params``.
        """
        if named is None or named == asker.organization:
            return asker.organization
        if not (asker.claims.is_service or asker.claims.is_ops):
            raise Refusal("forbidden", "organizationId is another organization's: leave it out")
        if not is_organization(named):
            raise Refusal("invalid_params", "organizationId: use 1..64 of A-Z a-z 0-9 . _ -")
        return named

    async def call(
        self, asker: Asker, method: str, params: bytes, *, organization: str, key: str = "", strict: bool = False
    ) -> object:
        """Call a method of `bridge.domain.methods.METHODS` and return its result.

        Args:
            asker: who calls. Operations may ask what services may.
            method: its name.
            params: its parameters as JSON text.
            organization: that it concerns.
            key: what the caller knows a repetition by.
            strict: refuse unknown parameters.

        Raises:
            Refusal: with a code of the contract.
        """
        row, claims = METHODS.get(method), asker.claims
        acts_for_all = claims.is_service or (claims.is_ops and (row is None or row.ops))
        if not acts_for_all and not asker.may_act_in(organization):
            raise Refusal("forbidden", f"organizationId is another organization's: {method} concerns one's own only")
        caller = SERVICE if acts_for_all else asker.caller()
        service = claims.user if acts_for_all else None
        call = Call(caller, self._rules, lambda: secrets.token_urlsafe(12), key, service)
        return await self._desk.ask(*decode_call(method, params, call, organization, strict=strict))

    async def order(self, organization: str, command: Command) -> object:
        """Give a command and return its result.

        Raises:
            Refusal: with a code of the contract.
        """
        return await self._desk.ask(organization, command)


async def body_of(request: Request) -> bytes:
    """Return the body of a request that carries JSON, or none.

    Raises:
        Refusal: ``unsupported_media_type``. A page of another origin cannot send JSON unasked, but forms and text.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != JSON:
        raise Refusal("unsupported_media_type", f"Content-Type: send {JSON}")
    return body


async def fields_of(request: Request) -> Fields:
    """Return the body, an object, with each value as the text that it came as.

    Raises:
        Refusal: ``unsupported_media_type`` or ``invalid_params``.
    """
    return read_fields(await body_of(request))


def read_fields(body: bytes) -> Fields:
    """Return an object's values, each as the text that it came as.

    Raises:
        Refusal: ``invalid_params``.
    """
    if not body:
        raise Refusal("invalid_params", "body is missing: send a JSON object")
    try:
        return read_json(_decode_fields, body)
    except Refusal as refusal:
        raise Refusal("invalid_params", f"body: {refusal.message}") from None


def text_of(fields: Mapping[str, msgspec.Raw], name: str) -> str | None:
    """Return a text among the fields, None where it is missing or null.

    Raises:
        Refusal: ``invalid_params``, it is no text.
    """
    if name not in fields:
        return None
    value = read_document(bytes(fields[name]))
    if value is not None and not isinstance(value, str):
        raise Refusal("invalid_params", f"{name} is no text: send a JSON string")
    return value


def params_of(fields: Mapping[str, object]) -> bytes:
    """Return fields as the parameters of a method."""
    return msgspec.json.encode(fields)


def answered(result: object) -> Response:
    """Return the answer with a result, which may hold `msgspec.Raw`."""
    return Response(msgspec.json.encode(result), media_type=JSON)


def idempotency_key(request: Request) -> str:
    """Return what the caller knows a repetition by, empty where it gives nothing.

    Raises:
        Refusal: ``invalid_params``, it is too long.
    """
    key = request.headers.get("idempotency-key", "")
    if len(key) > LONGEST_IDEMPOTENCY_KEY:
        raise Refusal("invalid_params", f"Idempotency-Key: at most {LONGEST_IDEMPOTENCY_KEY} characters")
    return key
