"""The route table: who hears what by default, what the configuration may say instead, and what it may not."""

from typing import get_args

import pytest

from bridge.domain.routes import EVENTS, REMINDER, WORDS, Route, RouteEntry, routes
from bridge.domain.routing import AUDIENCE
from bridge.errors import ConfigError
from bridge.settings import Audience

# As in the contract's table of events.
PRESENCE, SESSION = {"self", "watchers", "session", "room"}, {"session"}
AUDIENCES = {
    "UserPresenceChangedEvent": PRESENCE,
    "ParticipantPresenceChangedEvent": PRESENCE,
    "DevicePresenceChangedEvent": PRESENCE,
    "UserStatusChangedEvent": PRESENCE,
    "ParticipantStatusChangedEvent": PRESENCE,
    "DeviceStatusChangedEvent": PRESENCE,
    "JoinSessionEvent": SESSION,
    "StopSessionEvent": SESSION,
    "LeaveSessionEvent": SESSION,
    "JoinSessionReplyEvent": SESSION,
    "MediaStateChangedEvent": SESSION,
    "RoomPresenceChangedEvent": {"room"},
    "RoomPartiesListedEvent": {"endpoint"},
    "MediaSessionInvalidEvent": {"endpoint"},
    "UserEndpointRegisteredEvent": {"others"},
    "UserEndpointUnregisteredEvent": {"others", "endpoint"},
    "UserEndpointExpiredEvent": {"others", "endpoint"},
    "UserEndpointStateChangedEvent": {"others"},
    "UserEndpointKeepAliveReminderEvent": {"endpoint"},
}


def refused(*entries: RouteEntry, reminder_event: str = REMINDER) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        routes(entries, reminder_event)
    first, *faults = str(caught.value).splitlines()
    assert first == "the configuration cannot be used:"
    return [fault.strip() for fault in faults]


def test_the_default_table_is_the_contracts() -> None:
    table = routes()
    assert {event: set(table[event].audience) for event in AUDIENCES} == AUDIENCES
    assert {route[1:] for route in table.values()} == {(1, 0, False, None, False)}


def test_an_entry_replaces_what_it_says_and_nothing_else() -> None:
    table = routes([RouteEntry("DeviceStatusChangedEvent", ("watchers",), 0, 30, True), RouteEntry(REMINDER)])
    assert table["DeviceStatusChangedEvent"] == Route(("watchers",), 0, 30, True)
    assert {event: route for event, route in routes().items() if table[event] != route}.keys() == {
        "DeviceStatusChangedEvent"
    }


def test_an_empty_audience_is_nobody() -> None:
    assert routes([RouteEntry("UserStatusChangedEvent", ())])["UserStatusChangedEvent"].audience == ()


def test_an_event_that_the_bridge_does_not_make() -> None:
    [fault] = refused(RouteEntry("LampDimmedEvent"))
    assert fault.startswith(
        "routes[0].event: LampDimmedEvent is not made by this bridge: choose one of UserPresenceChangedEvent, "
    )


def test_two_entries_for_one_event() -> None:
    name = "UserStatusChangedEvent"
    assert refused(RouteEntry(name, ("self",)), RouteEntry(REMINDER), RouteEntry(name, qos=0)) == [
        f"routes[2].event: {name} stands in routes[0] too: keep one"
    ]


@pytest.mark.parametrize(
    ("event", "word", "choice"),
    [
        ("UserPresenceChangedEvent", "endpoint", "self, watchers, session, room, organization"),
        ("DeviceStatusChangedEvent", "others", "self, watchers, session, room, organization"),
        ("JoinSessionEvent", "self", "session, organization"),
        ("JoinSessionEvent", "watchers", "session, organization"),
        (REMINDER, "everybody", "endpoint, self, others, watchers, session, room, organization"),
    ],
)
def test_an_audience_that_the_event_never_has(event: str, word: str, choice: str) -> None:
    assert refused(RouteEntry(event, (word,))) == [
        f"routes[0].audience: {word} means nobody for {event}: choose from {choice}"
    ]


def test_everything_wrong_is_named_at_once() -> None:
    wrong = [RouteEntry("AEvent"), RouteEntry("JoinSessionEvent", ("self", "endpoint")), RouteEntry("JoinSessionEvent")]
    assert [fault.partition(":")[0] for fault in refused(*wrong)] == [
        "routes[0].event",
        "routes[1].audience",
        "routes[1].audience",
        "routes[2].event",
    ]


def test_a_renamed_reminder_is_routed_by_its_new_name_only() -> None:
    table = routes([RouteEntry("AreYouThereEvent", qos=0)], "AreYouThereEvent")
    assert table[REMINDER] == Route(("endpoint",), 0)
    [fault] = refused(RouteEntry(REMINDER), reminder_event="AreYouThereEvent")
    assert fault.endswith(
        "is not made by this bridge: endpoints.reminder_event calls it AreYouThereEvent: use that name"
    )


def test_the_reminder_is_not_called_like_another_event() -> None:
    [fault] = refused(reminder_event="UserEndpointExpiredEvent")
    assert fault.startswith("endpoints.reminder_event: UserEndpointExpiredEvent is another event")


def test_the_words_are_the_routers_and_the_settings() -> None:
    assert set(WORDS) == AUDIENCE.keys() == set(get_args(Audience))
    for audiences in EVENTS.values():
        assert set(audiences.default) | set(audiences.also) <= set(WORDS)


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (RouteEntry(REMINDER, masks=("$.a", "$.b[")), "routes[0].masks[1] at position "),
        (RouteEntry(REMINDER, masks=("$.a",) * 33), "routes[0].masks has 33 entries"),
        (RouteEntry(REMINDER, deliver_masked=True), "routes[0].deliver_masked: masks is empty"),
    ],
)
def test_a_bad_mask(entry: RouteEntry, fault: str) -> None:
    assert refused(entry)[0].startswith(fault)
