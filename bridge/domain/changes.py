"""From the unit of work to the commit: records as text, and what follows from them: indexes, deadlines, the floor.

Everything here is derived from the records, so no index can say anything else than they do.
"""

from bridge.domain.endpoints import next_due_ms
from bridge.domain.flaps import flaps_end
from bridge.domain.ids import parse_key, parse_part_key, parties_index
from bridge.domain.loaded import Entry
from bridge.domain.parties import party_due
from bridge.domain.permissions import permissions_end
from bridge.domain.records import EMPTY, Party, Permissions, Record, Room, Session, Subject, Views
from bridge.domain.rules import Rules
from bridge.domain.schema import encode_record
from bridge.domain.seats import member_of, seat_of
from bridge.domain.sessions import session_end
from bridge.domain.state import State
from bridge.domain.subjects import is_online, lease_end
from bridge.domain.token_rooms import room_end
from bridge.domain.values import Commit, Write

_EMPTY: dict[type[Record], Record] = {type(record): record for record in EMPTY.values()}


def commit_of(state: State, token: str) -> Commit:
    """Return what the batch changed in its organization; the journal is the line's to add."""
    commit = Commit(state.organization, token, unclaimed=sorted(state.unclaimed), window=state.window or 0)
    rules, resumed_ms = state.rules, state.moment.resumed_ms
    for key, entry in state.entries.items():
        before, after = entry.loaded, entry.record
        if after is before:
            commit.checks[key] = entry.loaded_version
            continue
        if after == _EMPTY[type(after)]:
            _delete(commit, key, entry)
        else:
            commit.writes.append(Write(key, entry.loaded_version, encode_record(after, entry.version)))
        if isinstance(before, Subject) and isinstance(after, Subject):
            is_same = before.connections is after.connections and before.sessions is after.sessions
            if not is_same or rules.from_endpoints:
                _index(commit, key, before, after, rules)
            is_leased = bool(rules.lease_ms) and before.connections is not after.connections
            if not is_leased and before.endpoints is after.endpoints and before.flips is after.flips:
                continue  # nothing else of a subject is ever due
        elif isinstance(before, Party) and isinstance(after, Party):
            _seat(commit, key, before, after)
        due = due_ms(key, after, rules, resumed_ms)
        if due != due_ms(key, before, rules, resumed_ms):
            commit.deadlines[key] = due
    commit.checks.update((key, version) for key, version in state.relied.items() if key not in state.entries)
    for key in state.touched & state.entries.keys():
        commit.deadlines[key] = due_ms(key, state.entries[key].record, rules, resumed_ms)
    commit.deadlines.update(dict.fromkeys(state.unfiled))
    return commit


def _delete(commit: Commit, key: str, entry: Entry) -> None:
    if entry.loaded_version:
        commit.writes.append(Write(key, entry.loaded_version, None))
    else:
        commit.checks[key] = 0
    commit.floor = max(commit.floor, entry.version)


def _seat(commit: Commit, key: str, before: Party, after: Party) -> None:
    room, party = parse_part_key(key)
    was = member_of(seat_of(party, before)) if before.is_present else None
    now = member_of(seat_of(party, after)) if after.is_present else None
    if was != now:
        members = commit.members.setdefault(parties_index(room), {})
        if was is not None:
            members[was] = False
        if now is not None:
            members[now] = True


def _index(commit: Commit, key: str, before: Subject, after: Subject, rules: Rules) -> None:
    for index, was, now in (
        ("online", is_online(before, rules), is_online(after, rules)),
        ("busy", bool(before.sessions), bool(after.sessions)),
    ):
        if was != now:
            kind, subject = parse_key(key)
            commit.members.setdefault(f"{index}:{kind}", {})[subject] = now


def due_ms(key: str, record: Record, rules: Rules, resumed_ms: int) -> int | None:
    """Return the registry clock at which something is due on a record, None where nothing ever will be."""
    if isinstance(record, Subject):
        dues = []
        for name, endpoint in record.endpoints.items():
            dues.append(next_due_ms(name, endpoint, rules, resumed_ms))
        if rules.lease_ms:
            for name, connection in record.connections.items():
                dues.append(lease_end(key, name, connection, rules, resumed_ms))
        if record.flips and (flaps_ms := flaps_end(record, rules)) is not None:
            dues.append(flaps_ms)
        return min(dues, default=None)
    if isinstance(record, Party):
        return party_due(key, record, resumed_ms)
    if isinstance(record, Room):
        return room_end(parse_key(key)[1], record, rules, resumed_ms) if record.maximum else None
    if isinstance(record, Session):
        if record.pending is not None:
            return 0
        if record.members:
            return session_end(parse_key(key)[1], record, rules, resumed_ms)
        if record.stopped_ms is not None:
            return record.forget_ms
    if isinstance(record, Views):
        return record.check_ms
    if isinstance(record, Permissions):
        return permissions_end(record, rules, resumed_ms)
    return None
