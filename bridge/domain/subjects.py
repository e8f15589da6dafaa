"""Subjects: who is online (a set of connections), busy (a set of sessions), and what status each reports.

Going offline keeps busy and drops a device's status. Presence is never a counter, so no lost message leaves a ghost.
Source: DESIGN 5, reference "presence and sessions" 3 and 6.
"""

from collections.abc import Mapping

import msgspec

from bridge.domain.clock import event_time
from bridge.domain.commands import (
    ListSubjects,
    ReportPresence,
    ReportStatus,
    SessionsOf,
    UpdateDeviceStatus,
)
from bridge.domain.decisions import NOTHING, Decision
from bridge.domain.events import PRESENCE_CHANGED, STATUS_CHANGED
from bridge.domain.flaps import flaps_end, flipped
from bridge.domain.ids import Ref, subject_key
from bridge.domain.pauses import counted_from
from bridge.domain.records import NO_STATUS, Connection, Subject
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.domain.values import Page
from bridge.errors import Refusal

replace = msgspec.structs.replace

MAXIMUM_ANSWER = 10_000
_NULL = msgspec.Raw(b"null")


def is_online(subject: Subject, rules: Rules) -> bool:
    """Online: has a live connection, or an endpoint where ``presence.from_endpoints`` counts those."""
    return bool(subject.connections) or (rules.from_endpoints and bool(subject.endpoints))


def presence_changed(
    state: State, ref: Ref, before: Subject, cause: str, *, session: str | None = None
) -> list[Emission]:
    """Tell that a subject is no longer what it was ``before``; nothing where online and busy are the same.

    Going offline drops a device's status here, so that every way of going offline does; and every flip is counted here.
    While it flaps its flips are not told.
    """
    after = kept = state.subject(*ref)
    rules = state.rules
    online, busy = is_online(after, rules), bool(after.sessions)
    flips, changes = online != is_online(before, rules), busy != bool(before.sessions)
    if not flips and not changes:
        return []
    key = subject_key(*ref)
    if ref.kind == "device" and flips and not online and after.status is not NO_STATUS:
        kept = replace(kept, status=NO_STATUS, status_ms=0, status_timestamp=0)
    if flips and rules.flap_limit:
        recent, too_many = flipped(kept.flips, state.moment.clock_ms, rules)
        kept = replace(kept, flips=recent, flapping=kept.flapping or too_many)
        if kept.flapping:
            cause = "flapping"
    version = state.version(key) if kept is after else state.save(key, kept)
    if after.flapping and not changes:
        return []
    return [_presence(state, ref, kept, version, cause, session)]


def _presence(
    state: State, ref: Ref, subject: Subject, version: int, cause: str, session: str | None = None
) -> Emission:
    event = PRESENCE_CHANGED[ref.kind](
        *state.stamp(f"{ref.kind}/{ref.id}", version),
        ref.id,
        is_online(subject, state.rules),
        bool(subject.sessions),
        subject.status if subject.status is not NO_STATUS else _NULL,
        cause,
    )
    return Emission(event, subject=ref, session=session)


def expire_flaps(state: State, ref: Ref, clock_ms: int) -> list[Emission]:
    """Forget a subject's flips once there was none for ``flap_ms``; where it flapped, tell what it is by now."""
    subject = state.subject(*ref)
    end_ms = flaps_end(subject, state.rules)
    if end_ms is None or end_ms > clock_ms:
        return []
    version = state.save_subject(ref, replace(subject, flips=(), flapping=False))
    return [_presence(state, ref, subject, version, "settled")] if subject.flapping else []


def report_presence(command: ReportPresence, state: State) -> Decision:
    """Add or remove one connection.

    A disconnect that names its connection removes exactly that one: a will's time is the time of CONNECT, so time is no
    judge there. Without a name it removes the unnamed one, unless it is older than that one's newest connect.
    """
    ref = Ref(command.kind, command.subject)
    before = state.subject(*ref)
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    if command.retained and not _is_news(command, before, state):
        return NOTHING
    name = command.connection
    present = before.connections.get(name)
    if command.online:
        if present is None and len(before.connections) >= state.rules.maximum_connections:
            raise Refusal(
                "not_allowed",
                f"{ref.kind} has {len(before.connections)} connections already (presence.maximum_connections): "
                "disconnect one first",
            )
        since_ms = time_ms if present is None else max(time_ms, present.since_ms)
        connections = {**before.connections, name: Connection(since_ms, state.moment.clock_ms)}
    else:
        # Only a time that came with it can be judged: a bare will after a connect by a clock that runs ahead is newer.
        if present is None or (not name and command.time_ms is not None and time_ms < present.since_ms):
            return NOTHING
        connections = {key: value for key, value in before.connections.items() if key != name}
    state.save_subject(ref, replace(before, connections=connections))
    return Decision(presence_changed(state, ref, before, "connected" if command.online else "disconnected"))


def _is_news(command: ReportPresence, before: Subject, state: State) -> bool:
    """Tell whether a replay at a subscription says anything: whoever published it may be long gone.

    Without a time it is no news of who is known; a status alone tells nothing of presence. Where connections have a
    lease, an ``online`` is none that was published before it began: who lives says so again within it.
    """
    if command.online and state.rules.lease_ms:
        return command.time_ms is not None and command.time_ms + state.rules.lease_ms > state.moment.now_ms
    return command.time_ms is not None or not (before.connections or before.sessions or before.endpoints)


def expire_connections(state: State, ref: Ref, clock_ms: int) -> list[Emission]:
    """Remove connections that were not renewed within the lease, where one is configured."""
    before = state.subject(*ref)
    live = {
        name: connection
        for name, connection in before.connections.items()
        if lease_end(subject_key(*ref), name, connection, state.rules, state.moment.resumed_ms) > clock_ms
    }
    if len(live) == len(before.connections):
        return []
    state.save_subject(ref, replace(before, connections=live))
    return presence_changed(state, ref, before, "expired")


def lease_end(key: str, name: str, connection: Connection, rules: Rules, resumed_ms: int) -> int:
    """Return the registry clock at which an unrenewed connection ends; ``key`` is its subject's."""
    return counted_from(connection.renewed_ms, resumed_ms, rules.lease_ms, f"{key}/{name}") + rules.lease_ms


def report_status(command: ReportStatus, state: State) -> Decision:
    """Take a status document, by newest time; an older one never wins. Kept for an offline subject too."""
    ref = Ref(command.kind, command.subject)
    now_ms = state.moment.now_ms
    time_ms = event_time(command.time_ms, now_ms)
    key = subject_key(*ref)
    if command.retained and command.time_ms is None and state.subject_at(key).status is not NO_STATUS:
        return NOTHING  # the replay of its presence may have come just before, and says nothing of its status
    timestamp = time_ms if command.timestamp is None else command.timestamp
    return Decision(_take_status(state, ref, key, command.status, time_ms, timestamp))


def _take_status(
    state: State, ref: Ref, key: str, status: msgspec.Raw, time_ms: int, timestamp: int | float
) -> list[Emission]:
    subject = state.subject_at(key)
    if subject.status is not NO_STATUS:
        if time_ms < subject.status_ms:
            return []
        if subject.status == status:
            if time_ms != subject.status_ms:
                state.save(key, replace(subject, status_ms=time_ms, status_timestamp=timestamp))
            return []
    version = state.save(key, replace(subject, status=status, status_ms=time_ms, status_timestamp=timestamp))
    event = STATUS_CHANGED[ref.kind](*state.stamp(f"{ref.kind}/{ref.id}", version), ref.id, status, timestamp)
    return [Emission(event, ref)]


def update_device_status(command: UpdateDeviceStatus, state: State) -> Decision:
    """Take a device's status by RPC. Answers what is stored afterwards; null, and no change, for an offline device."""
    ref = Ref("device", command.subject)
    time_ms = event_time(command.time_ms, state.moment.now_ms)
    if not is_online(state.subject(*ref), state.rules):
        return NOTHING
    emissions = _take_status(state, ref, subject_key(*ref), command.status, time_ms, command.timestamp)
    stored = state.subject(*ref)
    return Decision(
        emissions,
        {"uuid": ref.id, "status": bytes(stored.status).decode(), "timestamp": stored.status_timestamp},
    )


def list_subjects(command: ListSubjects, state: State) -> Decision:
    """Answer who is online or busy (sorted ids), or the ``status`` of all that are either (id -> what it is)."""
    limit = command.limit or MAXIMUM_ANSWER + 1
    indexes = ("online", "busy") if command.what == "status" else (command.what,)
    ids: set[str] = set()
    for index in indexes:
        ids.update(state.page(Page(f"{index}:{command.kind}", command.cursor, limit)))
    page = sorted(ids)[:limit]
    if command.limit is None and len(page) > MAXIMUM_ANSWER:
        raise Refusal("too_many", f"more than {MAXIMUM_ANSWER} answers: pass limit, and the last id as cursor")
    if command.what != "status":
        return Decision(answer=page)
    state.require([subject_key(command.kind, subject) for subject in page])
    return Decision(answer={subject: _view(state, Ref(command.kind, subject)) for subject in page})


def _view(state: State, ref: Ref) -> Mapping[str, object]:
    subject = state.subject(*ref)
    view: dict[str, object] = {"online": is_online(subject, state.rules), "busy": bool(subject.sessions)}
    if ref.kind == "device":
        known = subject.status is not NO_STATUS
        view["status"] = bytes(subject.status).decode() if known else None
        view["statusTimestamp"] = subject.status_timestamp if known else None
    return view


def sessions_of(command: SessionsOf, state: State) -> Decision:
    """Answer a subject's session ids, oldest first."""
    sessions = state.subject(command.kind, command.subject).sessions
    return Decision(answer=sorted(sessions, key=lambda session: sessions[session]))
