"""The route table: every event that the bridge makes, to whom it goes and how, and what the configuration may change.

What the words of an audience mean stands in `bridge.domain.routing`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bridge.domain.masks import Masks, compile_masks
from bridge.errors import ConfigError, Refusal

WORDS = ("self", "endpoint", "others", "watchers", "session", "room", "organization")
"""The words of an audience."""


class Route(NamedTuple):
    """To whom an event type goes, and how.

    Attributes:
        audience: from `WORDS`; none: nobody is told.
        qos: 0 or 1.
        expiry_seconds: after which the broker drops a copy that it could not pass on; 0: never.
        retain: the broker keeps an endpoint's newest such event for whoever subscribes to its topic later.
        masks: what of it is hidden in the audit stream; None: nothing.
        deliver_masked: hidden from the endpoints, too.
    """

    audience: tuple[str, ...]
    qos: int = 1
    expiry_seconds: int = 0
    retain: bool = False
    masks: Masks | None = None
    deliver_masked: bool = False


class RouteEntry(NamedTuple):
    """One ``[[routes]]`` of the configuration: what it says of an event; audience None: the default one."""

    event: str
    audience: tuple[str, ...] | None = None
    qos: int = 1
    expiry_seconds: int = 0
    retain: bool = False
    masks: tuple[str, ...] = ()
    deliver_masked: bool = False


class Audiences(NamedTuple):
    """Who hears of an event by default, and which words it may have besides: the others mean nothing for it."""

    default: tuple[str, ...]
    also: tuple[str, ...]


REMINDER = "UserEndpointKeepAliveReminderEvent"
_SUBJECT = Audiences(("self", "watchers", "session", "room"), ("organization",))
_SESSION = Audiences(("session",), ("organization",))
# Each of these shows what one participant may do: nobody else is to see it.
_PRIVATE = Audiences(("session",), ())


def _of_endpoint(*default: str) -> Audiences:
    return Audiences(default, tuple(word for word in WORDS if word not in default))


EVENTS: dict[str, Audiences] = {
    "UserPresenceChangedEvent": _SUBJECT,
    "ParticipantPresenceChangedEvent": _SUBJECT,
    "DevicePresenceChangedEvent": _SUBJECT,
    "UserStatusChangedEvent": _SUBJECT,
    "ParticipantStatusChangedEvent": _SUBJECT,
    "DeviceStatusChangedEvent": _SUBJECT,
    "JoinSessionEvent": _SESSION,
    "StopSessionEvent": _SESSION,
    "LeaveSessionEvent": _SESSION,
    "JoinSessionReplyEvent": _SESSION,
    "MediaStateChangedEvent": _SESSION,
    "RoomPresenceChangedEvent": Audiences(("room",), ("organization",)),
    "RoomPartiesListedEvent": Audiences(("endpoint",), ()),
    "RoomPartyKeepAliveReminderEvent": Audiences(("endpoint",), ()),
    "MediaSessionInvalidEvent": Audiences(("endpoint",), ()),
    "CallPermissionsChangedEvent": _PRIVATE,
    "MediaAttentionRequestedEvent": _PRIVATE,
    "UserEndpointRegisteredEvent": _of_endpoint("others"),
    "UserEndpointUnregisteredEvent": _of_endpoint("others", "endpoint"),
    "UserEndpointExpiredEvent": _of_endpoint("others", "endpoint"),
    "UserEndpointStateChangedEvent": _of_endpoint("others"),
    REMINDER: _of_endpoint("endpoint"),
}
"""Every event that the bridge makes, by its own name; ``endpoints.reminder_event`` may call the reminder another."""


def routes(entries: Iterable[RouteEntry] = (), reminder_event: str = REMINDER) -> dict[str, Route]:
    """Return the route table, event -> route: the default one with the configuration's ``[[routes]]`` in place.

    Args:
        entries: the configuration's, in order.
        reminder_event: what the configuration calls the reminder, in its routes too.

    Raises:
        ConfigError: with a line for each entry that overlaps another, names an event that the bridge does not make, or
            an audience that the event never has, or holds a bad mask; also where the reminder is called like another
            event.
    """
    table = {event: Route(audiences.default) for event, audiences in EVENTS.items()}
    known = {reminder_event if event == REMINDER else event: event for event in EVENTS}
    faults = []
    if len(known) < len(EVENTS):
        faults.append(f"endpoints.reminder_event: {reminder_event} is another event: call the reminder differently")
    places: dict[str, int] = {}
    for place, entry in enumerate(entries):
        event = known.get(entry.event)
        if event is None:
            remedy = f"choose one of {', '.join(known)}"
            if entry.event == REMINDER:
                remedy = f"endpoints.reminder_event calls it {reminder_event}: use that name"
            faults.append(f"routes[{place}].event: {entry.event} is not made by this bridge: {remedy}")
            continue
        if event in places:
            faults.append(f"routes[{place}].event: {entry.event} stands in routes[{places[event]}] too: keep one")
            continue
        places[event] = place
        words = (*EVENTS[event].default, *EVENTS[event].also)
        faults += (
            f"routes[{place}].audience: {word} means nobody for {entry.event}: choose from {', '.join(words)}"
            for word in entry.audience or ()
            if word not in words
        )
        audience = table[event].audience if entry.audience is None else entry.audience
        try:
            masks = compile_masks(entry.masks) if entry.masks else None
        except Refusal as refusal:
            faults.append(f"routes[{place}].{refusal.message}")
            continue
        if entry.deliver_masked and masks is None:
            faults.append(f"routes[{place}].deliver_masked: masks is empty: say what to hide, or leave it out")
        table[event] = Route(audience, entry.qos, entry.expiry_seconds, entry.retain, masks, entry.deliver_masked)
    if faults:
        raise ConfigError("\n".join(["the configuration cannot be used:", *(f"  {fault}" for fault in faults)]))
    return table


def audit_masks(table: Mapping[str, Route], reminder_event: str = REMINDER) -> dict[str, Masks]:
    """Return what the audit stream has yet to hide, event as delivered -> masks; masking twice is not masking once."""
    return {
        reminder_event if event == REMINDER else event: route.masks
        for event, route in table.items()
        if route.masks is not None and not route.deliver_masked
    }
