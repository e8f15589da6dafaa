"""What goes in and out of each RPC method, as JSON Schemas."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bridge.adapters.http import schemas as s
from bridge.adapters.http.schemas import Schema, an_object, or_null
from bridge.domain.audit import MAXIMUM_AUDIT
from bridge.domain.values import KINDS

IDS: Final[Schema] = {"type": "array", "items": {"type": "string"}}
ANYTHING: Final[Schema] = {}
NOTHING: Final[Schema] = {"type": "null"}
OBJECT: Final[Schema] = {"type": "object"}
STATUS: Final[Schema] = {
    "type": "object",
    "additionalProperties": an_object({"online": s.TRUTH, "busy": s.TRUTH}, ["online", "busy"]),
}
ENTRIES: Final[Schema] = {
    "type": "array",
    "items": an_object({"id": s.TEXT, "event": ANYTHING, "audience": IDS, "outcome": s.TEXT}, ["id", "event"]),
}

_PAGE: Final[Schema] = {"limit": s.LIMIT, "cursor": s.TEXT}
_SUBJECT: Final[Schema] = {"kind": s.KIND, "uuid": s.ID}
_PARTICIPANT: Final[Schema] = {"session": s.ID, "participant": or_null(s.ID)}
_FILTER: Final[Schema] = an_object(
    {name: {"type": ["string", "null"]} for name in ("userId", "type", "room", "session")}, additionalProperties=False
)

# The first is described as ``sendEvent``. Of the second no schema can tell which text is JSON and which time has come.
UNDESCRIBED: Final = frozenset({"send_event", "update_device_status"})


REGISTRATION: Final = (
    *("userId", "keepAliveSeconds", "serverKeepAliveReminderOn", "userEndpointId", "kind", "watch", "organizationId"),
)


class Described(NamedTuple):
    """Parameters and result of a method."""

    params: Schema
    result: Schema


def described(bodies: s.Bodies) -> Mapping[str, Described]:
    """Return the schemas of all methods but `UNDESCRIBED`."""
    who = {"userId": bodies.user}
    registration = {name: bodies.registration["properties"][name] for name in REGISTRATION}
    found = {f"{what}_{kind}s": _of(_PAGE, result=IDS) for what in ("online", "busy") for kind in KINDS}
    found |= {f"status_{kind}s": _of(_PAGE, result=STATUS) for kind in KINDS}
    return found | {
        "sessions_of": _of(_SUBJECT, "kind", "uuid", result=IDS),
        "explain": _of(_SUBJECT, "kind", "uuid", result=OBJECT),
        "session_members": _of({"session": s.ID}, "session", result=OBJECT),
        "media_state": _of(_PARTICIPANT, "session", result=OBJECT),
        "call_permissions": _of(_PARTICIPANT, "session", result=OBJECT),
        "room_parties": _of({"room": s.ID}, "room", result=OBJECT),
        "mute_participant": _mute(),
        "register_endpoint": _of(registration, *bodies.registration["required"], result=s.REGISTERED),
        "keepalive_endpoint": _of(s.NAMED["properties"], "userEndpointId", result=NOTHING),
        "unregister_endpoint": _of(s.UNREGISTRATION["properties"], "userEndpointId", result=NOTHING),
        "watch_endpoint": _of(
            s.NAMED["properties"] | {"watch": bodies.watch}, "userEndpointId", "watch", result=NOTHING
        ),
        "view_endpoint": _of(s.NAMED["properties"], "userEndpointId", result=s.VIEW),
        "list_endpoints": _of(who, *bodies.by_services, result={"type": "array", "items": s.VIEW}),
        "events": _of(
            {
                "since": s.SINCE,
                "filter": or_null(_FILTER),
                "limit": s.LIMIT | {"maximum": MAXIMUM_AUDIT},
            },
            result=ENTRIES,
        ),
    }


def _of(properties: Schema, *required: str, result: Schema) -> Described:
    in_order = {
        "type": "array",
        "prefixItems": list(properties.values()),
        "minItems": len(required),
        "maxItems": len(properties),
    }
    return Described({"anyOf": [_by_name(properties, required), in_order]}, result)


def _by_name(properties: Schema, required: Sequence[str], **more: Any) -> Schema:
    """Unknown parameters are refused."""
    return an_object(properties, required, additionalProperties=False, **more)


def _mute() -> Described:
    properties = {
        "session": s.ID,
        "participant": or_null(s.PERSON),
        "muteAll": s.TRUTH | {"default": False},
        "muteStates": or_null(s.ONE_MUTE_STATE),
        "requestedMedia": or_null(s.MEDIA_LIST),
        "adminId": or_null(s.PERSON),
        "roomId": or_null(s.ID),
    }
    whom = [
        {"required": ["participant"], "properties": {"participant": s.PERSON}},
        {"required": ["muteAll"], "properties": {"muteAll": {"const": True}}},
    ]
    what = [
        {"required": ["muteStates"], "properties": {"muteStates": {"type": "object", "minProperties": 1}}},
        {"required": ["requestedMedia"], "properties": {"requestedMedia": {"type": "array", "minItems": 1}}},
    ]
    return Described(_by_name(properties, ["session"], allOf=[{"anyOf": whom}, {"anyOf": what}]), NOTHING)
