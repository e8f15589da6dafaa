"""Routing: from an event and its audience to the MQTT messages that carry it.

`bridge.domain.routes` says for each event to whom and how; here is what the words of an audience mean (DESIGN 4).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress

import msgspec

from bridge.domain.events import Event
from bridge.domain.ids import Ref, parse_subject_key, room_key, session_key, subject_key
from bridge.domain.loaded import CorruptRecord
from bridge.domain.masks import masked_event
from bridge.domain.records import EMPTY_SUBJECT, Subject
from bridge.domain.routes import REMINDER, Route
from bridge.domain.seats import Seat, seats_page, wide_seats
from bridge.domain.state import State
from bridge.domain.topics import EndpointTopics
from bridge.domain.values import Output


class Emission(msgspec.Struct, frozen=True, gc=False):
    """An event and what its audience words stand for.

    Attributes:
        event: an `Event`, or a relay's mapping.
        subject: whose endpoints are ``self``, whose watchers are ``watchers``, whose sessions are ``session``.
        endpoint: the endpoint concerned and its owner's id, for ``endpoint`` and ``others``.
        session: the session named by the command, besides the subject's own.
        members: for relays: whom ``session`` means, in place of the session's members.
        party: the one concerned: its endpoints are ``endpoint``.
        parties: whom ``room`` means, in place of those of the subject's rooms.
    """

    event: Event | dict[str, object]
    subject: Ref | None = None
    endpoint: tuple[str, str] | None = None
    session: str | None = None
    members: tuple[Ref, ...] | None = None
    party: Seat | None = None
    parties: tuple[Seat, ...] | None = None


class Verbatim(msgspec.Struct, frozen=True, gc=False):
    """An event that a caller handed over, on its way to ``endpoints`` of ``user`` with not a byte changed."""

    payload: bytes
    event_id: str
    user: str
    endpoints: tuple[str, ...]
    qos: int


# Endpoint id -> its owner's id; a dict, so that an endpoint meant by two words is told once, in a stable order.
_Targets = dict[str, str]
# What an audience word means, given the emission and the record of its subject (the empty one where it has none).
_Word = Callable[[Emission, Subject, State, _Targets], None]


def _self(emission: Emission, subject: Subject, _: State, targets: _Targets) -> None:
    if emission.subject is not None:
        for endpoint in subject.endpoints:
            targets[endpoint] = emission.subject.id


def _endpoint(emission: Emission, _: Subject, state: State, targets: _Targets) -> None:
    if emission.endpoint is not None:
        targets[emission.endpoint[0]] = emission.endpoint[1]
    if emission.party is not None:
        _tell_parties((emission.party,), state, targets)


def _others(emission: Emission, subject: Subject, _: State, targets: _Targets) -> None:
    if emission.subject is not None and emission.endpoint is not None:
        for endpoint in subject.endpoints:
            if endpoint != emission.endpoint[0]:
                targets[endpoint] = emission.subject.id


def _watchers(emission: Emission, subject: Subject, state: State, targets: _Targets) -> None:
    if emission.subject is None:
        return
    wide = state.watchers().names
    if not wide and not subject.watchers:
        return
    for watching in (subject.watchers, wide.get(f"{emission.subject.kind}:*"), wide.get("*")):
        if watching:
            for endpoint, owner in watching.items():
                targets[endpoint] = parse_subject_key(owner).id


def _session(emission: Emission, subject: Subject, state: State, targets: _Targets) -> None:
    if emission.members is not None:
        _tell(emission.members, state, targets)
        return
    if not subject.sessions and emission.session is None:
        return
    sessions = dict.fromkeys(subject.sessions)
    if emission.session is not None:
        sessions[emission.session] = None
    # A join of a thousand makes a thousand events for the same members: they are looked up once for a command.
    known = state.audiences
    fresh = [session for session in sessions if session not in known]
    if fresh:
        state.require([session_key(session) for session in fresh])
        members = {session: list(state.session(session).members) for session in fresh}
        state.require([key for keys in members.values() for key in keys])
        for session, keys in members.items():
            known[session] = {
                endpoint: parse_subject_key(key).id for key in keys for endpoint in state.readable(key).endpoints
            }
    for session in sessions:
        targets.update(known[session])


def _organization(emission: Emission, _: Subject, state: State, targets: _Targets) -> None:
    if emission.endpoint is None or emission.subject is not None:  # else it answers an endpoint that nobody holds
        targets.update(state.endpoints())


def _room(emission: Emission, subject: Subject, state: State, targets: _Targets) -> None:
    if emission.parties is not None:
        _tell_parties(emission.parties, state, targets)
        return
    if not subject.parties:
        return
    rooms = list(subject.parties)
    state.require(map(room_key, rooms), pages=map(seats_page, rooms))
    for room in rooms:
        with suppress(CorruptRecord):  # its parties miss this; everybody else does not
            _tell_parties(state.seats(room).values(), state, targets)


def _tell_parties(seats: Collection[Seat], state: State, targets: _Targets) -> None:
    """Tell each party on the endpoint that stands for it, or on all of its sender's."""
    targets.update([(seat.endpoint, parse_subject_key(seat.owner).id) for seat in seats if seat.owner])
    wide = wide_seats(seats)
    state.require([seat.user for seat in wide])
    for seat in wide:
        endpoints = state.readable(seat.user).endpoints
        # It may have been registered after the party joined.
        for endpoint in (seat.party,) if seat.party in endpoints else endpoints:
            targets[endpoint] = parse_subject_key(seat.user).id


def _tell(members: Iterable[Ref], state: State, targets: _Targets) -> None:
    state.require([subject_key(*member) for member in members])
    for member in members:
        for endpoint in state.readable(subject_key(*member)).endpoints:
            targets[endpoint] = member.id


AUDIENCE: dict[str, _Word] = {
    "self": _self,
    "endpoint": _endpoint,
    "others": _others,
    "watchers": _watchers,
    "session": _session,
    "organization": _organization,
    "room": _room,
}


_ENDS = frozenset(("UserEndpointUnregisteredEvent", "UserEndpointExpiredEvent"))
_encode = msgspec.json.Encoder().encode


def _finish(event: str, route: Route, reminder_event: str) -> Callable[[bytes], bytes] | None:
    """Return what is still to be done to an encoded event: its configured name, its masks; None: nothing."""
    name = reminder_event if event == REMINDER else event
    masks = route.masks if route.deliver_masked else None
    if name == event and masks is None:
        return None

    def finish(payload: bytes) -> bytes:
        payload = payload.replace(event.encode(), name.encode(), 1)
        return payload if masks is None else masked_event(masks, payload)

    return finish


class Router:
    """Turns emissions into outputs. Pure: it reads the state and nothing else.

    Args:
        table: event type -> route.
        topics: writes endpoint topics.
        reminder_event: the configured type of the keepalive reminder.
    """

    def __init__(self, table: Mapping[str, Route], topics: EndpointTopics, reminder_event: str) -> None:
        # A route's words become the functions that resolve them once, not per event.
        self._routes = {
            event: (
                tuple(AUDIENCE[word] for word in route.audience),
                _finish(event, route, reminder_event),
                route.qos,
                route.retain,
                route.expiry_seconds,
            )
            for event, route in table.items()
        }
        self._ends = _ENDS if any(route.retain for route in table.values()) else frozenset()
        self._topics = topics

    def route(self, emission: Emission, state: State, outputs: list[Output]) -> None:
        """Append one output, with the topics of all endpoints that the emission concerns.

        Raises:
            bridge.domain.state.NotLoaded: a record that the audience needs is not loaded.
        """
        event = emission.event
        if isinstance(event, dict):
            event_type, event_id = str(event["type"]), str(event["id"])
        else:
            event_type, event_id = type(event).__name__, event.id
        words, finish, qos, retain, expiry_seconds = self._routes[event_type]
        subject = EMPTY_SUBJECT if emission.subject is None else state.subject(*emission.subject)
        targets: _Targets = {}
        for word in words:
            word(emission, subject, state, targets)
        if self._topics.names_user:  # nobody's topic is that of an endpoint that nobody holds
            targets = {endpoint: user for endpoint, user in targets.items() if user}
        if targets:
            payload = _encode(event)
            if finish is not None:
                payload = finish(payload)
            organization, topic = state.organization, self._topics.topic
            first, *others = [topic(organization, user, endpoint) for endpoint, user in targets.items()]
            outputs.append(Output(first, payload, qos, event_id, None, False, retain, expiry_seconds, tuple(others)))
        if emission.endpoint is not None and event_type in self._ends:
            # What the broker keeps on this topic must not reach whoever holds the id next.
            endpoint, user = emission.endpoint
            if user or not self._topics.names_user:
                outputs.append(Output(self._topics.topic(state.organization, user, endpoint), b"", retain=True))

    def pass_on(self, verbatim: Verbatim, state: State, outputs: list[Output]) -> None:
        """Append one output with the topics of all endpoints, in order; nothing where there is none."""
        topics = [self._topics.topic(state.organization, verbatim.user, endpoint) for endpoint in verbatim.endpoints]
        if topics:
            first, *others = topics
            outputs.append(Output(first, verbatim.payload, verbatim.qos, verbatim.event_id, others=tuple(others)))
