"""Evidence: why the registry says of a subject what it says, how old that is, and what would change it.

For operators who ask why somebody is shown online, or an endpoint was not told. It repeats no status document.
"""

from bridge.domain.clock import iso_ms
from bridge.domain.commands import Explain
from bridge.domain.decisions import Decision
from bridge.domain.endpoints import SICK, UNKNOWN, state_of, timing
from bridge.domain.ids import Ref, session_key, subject_key
from bridge.domain.loaded import CorruptRecord
from bridge.domain.records import NO_STATUS, Endpoint, Session, Subject
from bridge.domain.rules import Rules
from bridge.domain.sessions import session_end
from bridge.domain.state import State
from bridge.domain.subjects import is_online, lease_end

Answer = dict[str, object]


def explain(command: Explain, state: State) -> Decision:
    """Answer all that is known of a subject, with the reasons for what it is shown as."""
    ref, key = Ref(command.kind, command.subject), subject_key(command.kind, command.subject)
    subject = state.subject(*ref)
    state.require([session_key(session) for session in subject.sessions])
    now_ms = state.moment.now_ms
    return Decision(
        answer={
            "kind": ref.kind,
            "uuid": ref.id,
            "organizationId": state.organization,
            "known": state.is_known(key),
            "version": state.entry(key).version or None,
            "at": iso_ms(now_ms),
            "online": _online(subject, state.rules),
            "busy": _busy(subject, state.rules),
            "connections": [
                {
                    "connectionId": name or None,
                    "since": iso_ms(connection.since_ms),
                    "silentSeconds": _ago(state, connection.renewed_ms),
                    "endsInSeconds": _ahead(
                        state, lease_end(key, name, connection, state.rules, state.moment.resumed_ms)
                    )
                    if state.rules.lease_ms
                    else None,
                }
                for name, connection in subject.connections.items()
            ],
            "endpoints": [_endpoint(name, endpoint, state) for name, endpoint in subject.endpoints.items()],
            "sessions": [_session(session, joined_ms, state) for session, joined_ms in subject.sessions.items()],
            "rooms": {room: list(parties) for room, parties in subject.parties.items()},
            "status": None
            if subject.status is NO_STATUS
            else {
                "bytes": len(bytes(subject.status)),
                "timestamp": subject.status_timestamp,
                "ageSeconds": round((now_ms - subject.status_ms) / 1000, 3),
            },
            "watchedBy": list(subject.watchers),
        }
    )


def _online(subject: Subject, rules: Rules) -> Answer:
    connections, endpoints = len(subject.connections), len(subject.endpoints)
    reasons: list[str] = []
    flips: list[str] = []
    if connections:
        reasons.append(f"{_number(connections, 'connection')} reported and not ended")
        flips.append("a disconnect or will of each, by its name; of the unnamed one without a name")
        if rules.lease_ms:
            flips.append(f"no word from them for {rules.lease_ms / 1000:g} s (presence.lease_seconds)")
    if endpoints and rules.from_endpoints:
        reasons.append(f"its endpoints ({endpoints}) count (presence.from_endpoints)")
        flips.append("the end of its endpoints, each unregistered or expired")
    if not reasons:
        reasons.append("no connection is reported")
        flips.append("a connect of it")
        if rules.from_endpoints:
            flips.append("the registration of an endpoint (presence.from_endpoints)")
        elif endpoints:
            reasons.append(f"its endpoints ({endpoints}) do not count (presence.from_endpoints)")
    if subject.flapping:
        reasons.append(f"it flaps: told again once it is still for {rules.flap_ms / 1000:g} s (presence.flap_seconds)")
    return _verdict(is_online(subject, rules), reasons, flips)


def _busy(subject: Subject, rules: Rules) -> Answer:
    if not subject.sessions:
        return _verdict(False, ["it is in no live session"], ["a join that lists it"])
    return _verdict(
        True,
        [f"it is in {_number(len(subject.sessions), 'live session')}"],
        [
            "the end of all of them: it leaves, declines, or they stop",
            f"no traffic in them for {rules.session_ms / 3_600_000:g} h (sessions.session_hours)",
        ],
    )


def _verdict(value: bool, reasons: list[str], flips: list[str]) -> Answer:
    return {"value": value, "because": "; ".join(reasons), "flippedBy": flips}


def _endpoint(name: str, endpoint: Endpoint, state: State) -> Answer:
    resumed_ms = state.moment.resumed_ms
    due = timing(name, endpoint, state.rules, resumed_ms)
    shown = state_of(endpoint, resumed_ms)
    because = "its last keepalive came in time"
    if shown == UNKNOWN:
        because = "no keepalive since the bridge, the broker or Redis was away: its time began anew"
    elif shown == SICK:
        because = "no answer to its reminder" if endpoint.reminder_on else "it is within its grace"
    return {
        "id": name,
        "state": shown,
        "because": because,
        "flippedBy": ["a keepalive"] if shown != "HEALTHY" else ["silence"],
        "keepAliveSeconds": endpoint.keep_alive_seconds,
        "silentSeconds": _ago(state, endpoint.renewed_ms),
        "remindedInSeconds": _ahead(state, due.remind_ms),
        "sickInSeconds": _ahead(state, due.sick_ms),
        "expiresInSeconds": _ahead(state, due.expire_ms),
        "watch": list(endpoint.watch),
    }


def _session(name: str, joined_ms: int, state: State) -> Answer:
    try:
        session = state.session(name)
    except CorruptRecord:
        session = Session()
    return {
        "session": name,
        "joined": iso_ms(joined_ms),
        "members": len(session.members),
        "silentSeconds": _ago(state, session.renewed_ms),
        "endsInSeconds": _ahead(state, session_end(name, session, state.rules, state.moment.resumed_ms)),
    }


def _ago(state: State, clock_ms: int) -> float:
    return round((state.moment.clock_ms - clock_ms) / 1000, 3)


def _ahead(state: State, clock_ms: int | None) -> float | None:
    """Seconds until something is due on the registry clock; 0 where it waits for the next sweep."""
    return None if clock_ms is None else round(max(clock_ms - state.moment.clock_ms, 0) / 1000, 3)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
