"""Rooms behind a token: they are created, looked at and deleted, and people join, refresh, leave and report media.

Who calls shows a bearer token, or the session token of its join as the user of Basic authorization; to join, nothing.
Source: reference "rooms and media" A, contract details 23 to 28.
"""

import base64
import binascii
import secrets
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from bridge.adapters.http import documents as d
from bridge.adapters.http import room_schemas as s
from bridge.adapters.http.calls import Calls, answered, body_of, read_fields
from bridge.adapters.http.problems import ROOMS
from bridge.adapters.http.router import Routes
from bridge.domain.codec import read_document
from bridge.domain.ids import is_id, is_organization
from bridge.domain.room_commands import DeleteRoom, JoinRoom, ReadRoom, RoomCommand, Visitor
from bridge.domain.rules import Rules
from bridge.domain.token_room_codec import SessionToken, read_action, read_creation, visitor_of
from bridge.domain.token_rooms import Errno, RoomRefusal
from bridge.domain.values import kind_of
from bridge.errors import Refusal

# What a join, a refresh, a leave or a report is refused for with 400 though its body is as it should be.
_FAULTS_OF_THE_ROOM = {
    Errno.CLIENT_FULL: "more participants are there than clientMaxSize",
    Errno.ROOM_FULL: "the room is full",
    Errno.NOT_IN_ROOM: "the participant is not in the room",
}

# Between the random part of a room's token and its organization, where that is not the default one: who comes without
# a token of its own names it so. Neither part holds it.
_DIVIDER = "~"


def room_routes(calls: Calls, rules: Rules, api_key: str) -> Routes:
    """Return the routes of ``/rooms``; ``api_key`` is what a join answers as ``apiKey``."""
    routes = Routes("rooms", ROOMS)

    @routes.on(
        "POST",
        "",
        d.document("Create a room", body=s.creation(rules), answer=s.CREATED, errors=d.WITH_TOKEN, status=201),
    )
    async def create(request: Request) -> Response:
        asker = await calls.asker(request)
        owner = asker.claims.user
        if owner is None:
            asker.caller()  # no room of nobody
        fields = await _fields(request)
        named = fields.get("organizationId")
        if not isinstance(named, str | None):
            raise RoomRefusal(Errno.INVALID_PARAMETERS, f"organizationId is {kind_of(named)}: send text")
        organization = calls.organization(asker, named)
        if not asker.may_act_in(organization):
            raise Refusal("forbidden", "organizationId is another organization's: create rooms in your own")
        room = secrets.token_urlsafe(12)
        if organization != calls.default_organization:
            room += _DIVIDER + organization
        found = answered(await calls.order(organization, read_creation(fields, room, owner or "")))
        found.status_code = 201
        return found

    def found(request: Request) -> tuple[str, str]:
        """Return the room that the path names, and its organization."""
        room: str = request.path_params["token"]
        organization = room.partition(_DIVIDER)[2] or calls.default_organization
        if not is_id(room) or not is_organization(organization):
            raise RoomRefusal(Errno.UNKNOWN_ROOM, "no room has this token")
        return room, organization

    async def somebody(request: Request, organization: str) -> Visitor:
        visitor = await _visitor(calls, request, organization)
        if visitor is None:
            raise RoomRefusal(Errno.UNAUTHORIZED, "nobody calls: send a bearer token, or a session token by Basic")
        return visitor

    on_room = (*d.WITH_TOKEN, 404)

    @routes.on("GET", "/{token}", d.document("Look at a room", answer=s.VIEW, errors=on_room, parameters=[s.TOKEN]))
    async def read(request: Request) -> Response:
        room, organization = found(request)
        visitor = await somebody(request, organization)
        return answered(await calls.order(organization, ReadRoom(room, visitor)))

    @routes.on("DELETE", "/{token}", d.document("Delete a room", errors=on_room, parameters=[s.TOKEN], status=204))
    async def delete(request: Request) -> Response:
        room, organization = found(request)
        visitor = await somebody(request, organization)
        await calls.order(organization, DeleteRoom(room, visitor))
        return Response(status_code=204)

    acting = d.document(
        "Join, refresh, leave, report media",
        body=s.ACTION,
        answer=s.ACTED,
        errors=(*on_room, 410, 429),
        parameters=[s.TOKEN],
    )
    acting["responses"][400]["description"] += "; also where the body is as described, by errno: " + ", ".join(
        f"{errno:d} {fault}" for errno, fault in _FAULTS_OF_THE_ROOM.items()
    )
    acting["responses"][204] = {"description": "Left, or the report was taken"}
    acting["security"] = []  # to join, nobody has to be known

    @routes.on("POST", "/{token}", acting)
    async def act(request: Request) -> Response:
        room, organization = found(request)
        visitor = await _visitor(calls, request, organization) or Visitor()
        made = SessionToken(secrets.token_urlsafe(12), secrets.token_urlsafe(24))
        command: RoomCommand
        try:
            command = read_action(await _fields(request), room, visitor, made)
        except RoomRefusal as refusal:
            if refusal.errno is not Errno.UNAUTHORIZED:  # that there is no such room goes before all that is said to it
                await calls.order(organization, ReadRoom(room, Visitor(is_service=True)))
            raise
        answer = await calls.order(organization, command)
        if answer is None:
            return Response(status_code=204)
        if isinstance(command, JoinRoom):
            joined = cast("dict[str, object]", answer)
            token = SessionToken(str(joined["roomConnectionId"]), made.secret)
            answer = {"apiKey": api_key, "sessionToken": str(token), **joined}
        return answered(answer)

    return routes


async def _visitor(calls: Calls, request: Request, organization: str) -> Visitor | None:
    """Return who calls about a room of ``organization``; None: nobody.

    Raises:
        RoomRefusal: a token that does not count; or a user of another organization, for whom there is no such room.
    """
    authorization = request.headers.get("authorization")
    scheme, _, credentials = (authorization or "").strip().partition(" ")
    if scheme.lower() == "basic":
        return visitor_of(_basic_user(credentials))
    if authorization is None and calls.needs_token:
        return None
    asker = await calls.asker(request)
    try:
        calls.organization(asker, organization)
    except Refusal:
        raise RoomRefusal(Errno.UNKNOWN_ROOM, "no room of the caller's organization has this token") from None
    user = asker.claims.user if asker.may_act_in(organization) else None  # operations look elsewhere as nobody
    return Visitor(user=user or "", is_service=asker.claims.is_service)


def _basic_user(credentials: str) -> str:
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        raise RoomRefusal(
            Errno.UNAUTHORIZED, "the header Authorization is not Basic <base64 of the session token and a colon>"
        ) from None


async def _fields(request: Request) -> dict[str, object]:
    """Return the body, an empty one where there is none."""
    body = await body_of(request)
    if not body:
        return {}
    try:
        return {name: read_document(bytes(text)) for name, text in read_fields(body).items()}
    except Refusal as refusal:
        raise RoomRefusal(Errno.BAD_JSON, refusal.message) from None
