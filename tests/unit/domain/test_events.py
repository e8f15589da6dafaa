"""Events on the wire: the common fields, the type by the class's name, and relays as they came."""

import re

import msgspec
import pytest

from bridge.domain import events as module
from bridge.domain.events import PRESENCE_CHANGED, STATUS_CHANGED, Event, UserEndpointExpiredEvent, relayed
from bridge.domain.values import KINDS

STAMP = ("id1", "2026-01-31T12:00:00.000Z", "acme", "user/ann", 7)
COMMON = {"id", "type", "timestamp", "organizationId", "about", "version"}
CLASSES = [
    one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Event) and "Event" in one.__name__
]


@pytest.mark.parametrize("event", [one for one in CLASSES if one.__name__.endswith("edEvent")])
def test_a_type_is_a_noun_and_a_verb(event: type[Event]) -> None:
    assert re.fullmatch("[A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*Event", event.__name__)
    assert event.__struct_config__.tag == event.__name__


@pytest.mark.parametrize("kind", KINDS)
def test_presence_and_status_events_have_the_fields_of_the_contract(kind: str) -> None:
    raw = msgspec.Raw(b'{"a":1}')
    presence = msgspec.json.decode(
        msgspec.json.encode(PRESENCE_CHANGED[kind](*STAMP, "ann", True, False, raw, "connected"))  # type: ignore[index]
    )
    assert set(presence) == {*COMMON, "uuid", "online", "busy", "status", "cause"}
    assert presence["type"] == f"{kind.capitalize()}PresenceChangedEvent"
    assert presence["status"] == {"a": 1}
    status = msgspec.json.decode(msgspec.json.encode(STATUS_CHANGED[kind](*STAMP, "ann", raw, 5)))  # type: ignore[index]
    assert set(status) == {*COMMON, "uuid", "status", "statusTimestamp"}


def test_an_endpoint_event_names_the_endpoint_and_its_user_or_null() -> None:
    event = msgspec.json.decode(msgspec.json.encode(UserEndpointExpiredEvent(*STAMP, "e1", None)))
    assert set(event) == {*COMMON, "userEndpointId", "userId"}
    assert event["userId"] is None


def test_a_relay_keeps_its_fields_under_the_common_ones() -> None:
    fields = {"joinMsg": "hi", "id": "theirs", "version": "x", "type": "?", "sessionUsers": ["ann"], "timestamp": 5}
    event = relayed("JoinSessionEvent", STAMP, fields)
    assert event == {
        "joinMsg": "hi",
        "sessionUsers": ["ann"],
        "type": "JoinSessionEvent",
        "id": "id1",
        "timestamp": STAMP[1],
        "organizationId": "acme",
        "about": "user/ann",
        "version": 7,
    }
    assert fields["id"] == "theirs"
