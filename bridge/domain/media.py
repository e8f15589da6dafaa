"""Media: what each participant of a session sends and receives, by its own counters.

The state follows from the counters; what the participant claims is kept beside it, and what does not add up is recorded
as an anomaly rather than refused. Each participant has a record of its own. One of the session counts who sees how many
connections, so that peers which disagree are found without reading them all at every report.
Source: reference "rooms and media" A and C, contract details 28 to 30.
"""

from collections.abc import Collection, Iterable

import msgspec

from bridge.domain.commands import MediaStateOf
from bridge.domain.decisions import Decision
from bridge.domain.events import MediaStateChangedEvent
from bridge.domain.ids import part_key, views_key
from bridge.domain.media_table import (
    ANOMALIES,
    CLAIM_DIFFERS,
    COUNTER_BELOW_ZERO,
    IMPOSSIBLE_STEP,
    PEERS_DISAGREE,
    STEPS,
    STREAMS_WHILE_ALONE,
    Counters,
    media_state,
)
from bridge.domain.membership import participants, require_participant
from bridge.domain.records import Media, Views
from bridge.domain.routing import Emission
from bridge.domain.state import State

replace = msgspec.structs.replace

DISAGREE_AFTER_MS = 5_000
# Each is told to all members: in a full session a chunk makes 10,000 messages.
CHECK_CHUNK = 10
_NO_MEDIA = Media()
# Those of a report by itself; the others come from the report before it, and from the peers.
_OWN_ANOMALIES = frozenset((COUNTER_BELOW_ZERO, STREAMS_WHILE_ALONE, CLAIM_DIFFERS))


def report_counters(state: State, session: str, participant: str, counters: Counters) -> list[Emission]:
    """Take what a participant counts; told to the session where that changes anything."""
    before = state.media(session, participant)
    is_first = before == _NO_MEDIA
    after = _reported(before, counters)
    if after == replace(before, anomalies=_codes(_OWN_ANOMALIES.intersection(before.anomalies))):
        return []
    if not is_first and not _is_possible(before, after):
        after = replace(after, anomalies=_codes((*after.anomalies, IMPOSSIBLE_STEP)))
    was = None if is_first else before.connections
    now = None if after == _NO_MEDIA else after.connections
    if was != now:
        _count(state, session, participant, was, now)
    if participant in state.views(session).odd:
        after = replace(after, anomalies=_codes((*after.anomalies, PEERS_DISAGREE)))
    return [_save(state, session, participant, after)]


def _reported(before: Media, counters: Counters) -> Media:
    """Return what a report says by itself."""
    connections, sends, receives = (max(count, 0) for count in counters.counts)
    has_media = sends > 0 or receives > 0
    had_media = connections > 1 and (has_media or before.had_media)
    now = media_state(connections, sends, receives, had_media)
    found = {
        COUNTER_BELOW_ZERO: min(counters.counts) < 0,
        STREAMS_WHILE_ALONE: connections < 2 and has_media,
        CLAIM_DIFFERS: counters.claimed not in (None, now),
    }
    anomalies = _codes(code for code, is_so in found.items() if is_so)
    return Media(connections, sends, receives, now, counters.claimed, anomalies, had_media)


def _is_possible(before: Media, after: Media) -> bool:
    units = sum(
        abs(getattr(after, counter) - getattr(before, counter)) for counter in ("connections", "sends", "receives")
    )
    return after.state == before.state or after.state in STEPS[before.state] or units == 1


def _codes(codes: Iterable[str]) -> tuple[str, ...]:
    found = set(codes)
    return tuple(code for code in ANOMALIES if code in found)


def _save(state: State, session: str, participant: str, media: Media) -> Emission:
    """Save what a participant has now, and return what there is to tell."""
    previous = state.media(session, participant).state
    version = state.save(part_key("media", session, participant), media)
    event = MediaStateChangedEvent(
        *state.stamp(f"media/{session}/{participant}", version),
        session,
        participant,
        media.state,
        previous,
        media.connections,
        media.sends,
        media.receives,
        media.claimed,
        media.anomalies,
    )
    return Emission(event, session=session)


# Peers.


def _usual(views: Views) -> int | None:
    """Return the number of connections that most connected participants report, None where no number leads."""
    counts = sorted(((many, count) for count, many in views.counts.items() if count), reverse=True)
    is_tie = len(counts) > 1 and counts[0][0] == counts[1][0]
    return counts[0][1] if counts and not is_tie else None


def _count(state: State, session: str, participant: str, was: int | None, now: int | None) -> None:
    """Count a participant's number of connections in place of its former one; None: it reports none."""
    views = state.views(session)
    counts = dict(views.counts)
    if was is not None:
        counts[was] -= 1
    if now is not None:
        counts[now] = counts.get(now, 0) + 1
    views = replace(views, counts={count: many for count, many in counts.items() if many})
    if now in (None, 0, _usual(views)):
        views = replace(views, odd=tuple(other for other in views.odd if other != participant))
    check_ms = None
    if sum(1 for count in views.counts if count) > 1:
        check_ms = state.moment.clock_ms + DISAGREE_AFTER_MS
    elif views.odd:
        check_ms = 0
        state.go_on(views_key(session))
    state.save(views_key(session), replace(views, check_ms=check_ms))


def check_views(state: State, session: str, clock_ms: int) -> list[Emission]:
    """Find out who is at odds with the peers, once nobody's number of connections has changed for five seconds."""
    views = state.views(session)
    if views.check_ms is None or views.check_ms > clock_ms:
        return []
    here = _readable(state, session, participants(state, session))
    odd = set()
    if sum(1 for count in views.counts if count) > 1:
        usual = _usual(views)
        odd = {each for each in here if state.media(session, each).connections not in (0, usual)}
    changed = sorted(odd.symmetric_difference(views.odd))
    chunk = changed[:CHECK_CHUNK]
    emissions = []
    for participant in chunk:
        media = state.media(session, participant)
        anomalies = {*media.anomalies, PEERS_DISAGREE} if participant in odd else {*media.anomalies} - {PEERS_DISAGREE}
        emissions.append(_save(state, session, participant, replace(media, anomalies=_codes(anomalies))))
    is_done = chunk == changed
    now_odd = tuple(sorted(set(views.odd).symmetric_difference(chunk)))
    state.save(views_key(session), replace(views, odd=now_odd, check_ms=None if is_done else 0))
    if not is_done:
        state.go_on(views_key(session))
    return emissions


# What ends with membership.


def media_left(state: State, session: str, leavers: Collection[str]) -> list[Emission]:
    """Take participants that left a session out of the picture; told to who is still there."""
    has_views = state.is_readable(views_key(session))
    if has_views and not state.views(session).counts:
        return []
    emissions = []
    for leaver in _readable(state, session, leavers):
        before = state.media(session, leaver)
        if before == _NO_MEDIA:
            continue
        gone = _save(state, session, leaver, _NO_MEDIA)
        if before.state != _NO_MEDIA.state:
            emissions.append(gone)
        if has_views:
            _count(state, session, leaver, before.connections, None)
    return emissions


def media_ended(state: State, session: str, leavers: Collection[str], *, is_last: bool) -> None:
    """Forget the media of a session that has ended, a chunk of its participants at a time: its end says all."""
    has_views = state.is_readable(views_key(session))
    if has_views and not state.views(session).counts:
        return
    for leaver in _readable(state, session, leavers):
        key = part_key("media", session, leaver)
        if state.is_known(key):
            state.save(key, _NO_MEDIA)
    if is_last and has_views:
        state.save(views_key(session), Views())


def _readable(state: State, session: str, ids: Iterable[str]) -> list[str]:
    """Return the participants whose media can be read; those of all are asked for at once."""
    keys = {each: part_key("media", session, each) for each in ids}
    state.require(keys.values())
    return [each for each, key in keys.items() if state.is_readable(key)]


# Questions.


def media_state_of(command: MediaStateOf, state: State) -> Decision:
    """Answer a participant's media state, or that of every participant by id."""
    session, participant, user = command.session, command.participant, command.caller.user
    if user is not None:
        require_participant(state, session, user, "the caller", "forbidden", "user")
    if participant is not None:
        return Decision(answer=_view(state, session, participant))
    here = _readable(state, session, participants(state, session))
    return Decision(answer={each: _view(state, session, each) for each in here})


def _view(state: State, session: str, participant: str) -> dict[str, object]:
    media = state.media(session, participant)
    return {
        "state": media.state,
        "connections": media.connections,
        "sendStreams": media.sends,
        "recvStreams": media.receives,
        "claimed": media.claimed,
        "anomalies": media.anomalies,
        "version": state.entry(part_key("media", session, participant)).version,
    }
