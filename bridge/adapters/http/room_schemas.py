"""What goes in and out of ``/rooms``, as JSON Schemas."""

from typing import Final

from bridge.adapters.http import schemas as s
from bridge.adapters.http.schemas import Schema, an_object, or_null
from bridge.domain.media_codec import LARGEST_COUNT
from bridge.domain.rules import Rules
from bridge.domain.token_room_codec import LARGEST_SIZE, MAXIMUM_NAME_LENGTH

_NAME: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAXIMUM_NAME_LENGTH}
_WHEN: Final[Schema] = {"type": "string", "format": "date-time"}
_SESSION_TOKEN: Final[Schema] = {"sessionToken": {"description": "In place of Basic authorization."}}
_COUNTER: Final[Schema] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": LARGEST_COUNT},
        {"type": "string", "pattern": "^[0-9]{1,6}$"},
    ]
}

TOKEN: Final[Schema] = {"name": "token", "in": "path", "required": True, "schema": s.TEXT}

CREATED: Final[Schema] = an_object({"roomToken": s.TEXT, "expiresAt": _WHEN}, ["roomToken", "expiresAt"])
VIEW: Final[Schema] = an_object(
    {
        "roomToken": s.TEXT,
        "roomName": s.TEXT,
        "maxSize": s.COUNT,
        "participants": {
            "type": "array",
            "items": an_object(
                {"displayName": s.TEXT, "roomConnectionId": s.TEXT, "owner": s.TRUTH},
                ["displayName", "roomConnectionId", "owner"],
            ),
        },
        "expiresAt": _WHEN,
    },
    ["roomToken", "roomName", "maxSize", "participants", "expiresAt"],
)


def creation(rules: Rules) -> Schema:
    """Return the body of ``POST /rooms``."""
    return an_object(
        {
            "roomName": or_null(_NAME),
            "maxSize": {
                "type": "integer",
                "minimum": 1,
                "maximum": rules.maximum_parties,
                "description": "Seats; one is kept for the owner.",
            },
            "organizationId": or_null(s.ORGANIZATION),
        },
        ["maxSize"],
        example={"roomName": "Tea", "maxSize": min(4, rules.maximum_parties)},
    )


ACTION: Final[Schema] = {
    "anyOf": [
        an_object(
            {
                "action": {"const": "join"},
                "displayName": _NAME | {"description": "As the others see it."},
                "clientMaxSize": {
                    "anyOf": [
                        {"type": "integer", "minimum": 1, "maximum": LARGEST_SIZE},
                        {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"},
                    ],
                    "description": "The largest room that the client can handle.",
                },
                "userEndpointId": or_null(s.ENDPOINT_ID | {"description": "Where it hears of the room."}),
            },
            ["action", "displayName", "clientMaxSize"],
        ),
        an_object({"action": {"const": "refresh"}} | _SESSION_TOKEN, ["action"]),
        an_object({"action": {"const": "leave"}} | _SESSION_TOKEN, ["action"]),
        an_object(
            {
                "action": {"const": "status"},
                "event": s.TEXT | {"description": "What changed."},
                "state": s.TEXT | {"description": "The state after it."},
                "connections": _COUNTER | {"description": "Of the call, its own included."},
                "sendStreams": _COUNTER,
                "recvStreams": _COUNTER,
            },
            ["action", "event", "state", "connections", "sendStreams", "recvStreams"],
        ),
    ],
    "example": {"action": "join", "displayName": "Ann", "clientMaxSize": 4, "userEndpointId": "ann-phone"},
}
ACTED: Final[Schema] = an_object(
    {
        "apiKey": s.TEXT | {"description": "rooms.api_key of the configuration."},
        "sessionId": s.TEXT | {"description": "Id of the session: the room's token."},
        "sessionToken": s.TEXT | {"description": "User of Basic authorization from now on."},
        "roomConnectionId": s.TEXT,
        "mediaRole": {"type": "string", "enum": ["moderator", "publisher"]},
        "expires": s.COUNT | {"description": "Seconds in which to refresh."},
    },
    ["expires"],
    description="Of a join; a refresh answers expires alone.",
)
