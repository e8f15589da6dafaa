"""Endpoints: where subjects can be reached, kept alive by keepalives and expired without them.

All times are on the registry clock, which stands still during outages. After a pause whatever was renewed before it
starts its interval anew, plus a jitter from its id, so that an outage expires nobody and is followed by no storm.
Source: DESIGN 3.3 and 5, contract details 38 and 41.
"""

from collections.abc import Iterable

import msgspec

from bridge.domain.clock import iso_ms
from bridge.domain.commands import (
    Caller,
    KeepEndpoint,
    ListEndpoints,
    RegisterEndpoint,
    UnregisterEndpoint,
    ViewEndpoint,
    WatchEndpoint,
)
from bridge.domain.decisions import NOTHING, Decision
from bridge.domain.events import (
    UserEndpointExpiredEvent,
    UserEndpointKeepAliveReminderEvent,
    UserEndpointRegisteredEvent,
    UserEndpointStateChangedEvent,
    UserEndpointUnregisteredEvent,
)
from bridge.domain.ids import WATCHERS_KEY, Ref, is_id, subject_key
from bridge.domain.owners import holder, is_at_home, release_id, take_id
from bridge.domain.parties import end_parties
from bridge.domain.pauses import counted_from
from bridge.domain.records import Endpoint, Watchers
from bridge.domain.routing import Emission
from bridge.domain.rules import Rules
from bridge.domain.state import Elsewhere, State
from bridge.domain.subjects import presence_changed
from bridge.domain.values import KINDS
from bridge.errors import Refusal

replace = msgspec.structs.replace

TELL_EXPIRED_EVERY_MS = 10_000
HEALTHY, SICK, UNKNOWN = "HEALTHY", "SICK", "UNKNOWN"


class Timing(msgspec.Struct, frozen=True):
    """When things fall due for one endpoint, in registry clock milliseconds; None for what will not happen."""

    remind_ms: int | None
    sick_ms: int | None
    expire_ms: int

    @property
    def next_ms(self) -> int:
        """The earliest of them."""
        return min(due for due in (self.remind_ms, self.sick_ms, self.expire_ms) if due is not None)


def timing(name: str, endpoint: Endpoint, rules: Rules, resumed_ms: int) -> Timing:
    """Return what falls due when, from the last keepalive or, after a pause since then, from the resumption.

    The reminder goes out at two thirds of the interval. Sick: a reminder unanswered for half of the time left, or
    within grace. What has happened since the last keepalive is not due again, but for a reminder before a pause: its
    answer may have been lost.
    """
    interval_ms = endpoint.keep_alive_seconds * 1000
    base = counted_from(endpoint.renewed_ms, resumed_ms, interval_ms, name)
    reminded_ms = endpoint.reminded_ms if endpoint.reminded_ms >= resumed_ms else 0
    end = base + interval_ms
    remind = sick = None
    if endpoint.reminder_on:
        remind = base + interval_ms * 2 // 3
        reminded = reminded_ms or remind
        sick = reminded + max(end - reminded, 0) // 2
    elif rules.grace_ms:
        sick = end
    return Timing(
        remind_ms=None if reminded_ms else remind,
        sick_ms=None if endpoint.sick else sick,
        expire_ms=end + rules.grace_ms,
    )


def next_due_ms(name: str, endpoint: Endpoint, rules: Rules, resumed_ms: int) -> int:
    """Return the registry clock at which something falls due for an endpoint first, as `timing` has it."""
    if endpoint.renewed_ms >= resumed_ms and not endpoint.reminder_on and not rules.grace_ms:
        return endpoint.renewed_ms + endpoint.keep_alive_seconds * 1000  # as for most, in a tenth of the time
    return timing(name, endpoint, rules, resumed_ms).next_ms


def state_of(endpoint: Endpoint, resumed_ms: int) -> str:
    """Return ``UNKNOWN`` where it was last renewed before a pause, else ``SICK`` or ``HEALTHY``."""
    if endpoint.renewed_ms < resumed_ms:
        return UNKNOWN
    return SICK if endpoint.sick else HEALTHY


def register_endpoint(command: RegisterEndpoint, state: State) -> Decision:
    """Make an endpoint, or renew one that the same subject has. Answers ``{"id"}``."""
    rules, ref, name = state.rules, Ref(command.kind, command.subject), command.endpoint
    before = state.subject(*ref)
    present = before.endpoints.get(name)
    if present is None:
        if len(before.endpoints) >= rules.maximum_per_subject:
            raise Refusal(
                "quota_exceeded",
                f"{ref.kind} has {len(before.endpoints)} endpoints (endpoints.maximum_per_subject): unregister one",
            )
        take_id(state, ref, name)
    watch = command.watch
    if watch is None:
        watch = rules.default_watch if present is None else present.watch
    endpoint = Endpoint(
        command.keep_alive_seconds,
        state.moment.clock_ms,
        version=0,
        reminder_on=command.reminder_on,
        watch=watch,
    )
    _watch(state, ref, name, present.watch if present is not None else (), watch)
    version = _put(state, ref, name, endpoint)
    emissions: list[Emission] = []
    if present is None:
        emissions.append(
            Emission(
                UserEndpointRegisteredEvent(*state.stamp(f"{ref.kind}/{ref.id}", version), name, ref.id),
                subject=ref,
                endpoint=(name, ref.id),
            )
        )
        emissions += presence_changed(state, ref, before, "connected")
    elif present.sick:
        emissions.append(_state_changed(state, ref, name, version, HEALTHY, SICK))
    return Decision(emissions, {"id": name})


def keep_endpoint(command: KeepEndpoint, state: State) -> Decision:
    """Renew an endpoint. One that nobody holds is answered on its own topic, at most once in ten seconds."""
    name = command.endpoint
    ref = _holder(state, name, command.caller)
    if ref is None:
        if command.asked:
            raise _not_found(name)
        return _tell_unknown(state, name)
    endpoint = state.subject(*ref).endpoints[name]
    kept = replace(endpoint, renewed_ms=state.moment.clock_ms, reminded_ms=0, sick=False)
    if not endpoint.sick:
        subject = state.subject(*ref)
        state.save_subject(ref, replace(subject, endpoints={**subject.endpoints, name: kept}))
        return NOTHING
    version = _put(state, ref, name, kept)
    return Decision([_state_changed(state, ref, name, version, HEALTHY, SICK)])


def unregister_endpoint(command: UnregisterEndpoint, state: State) -> Decision:
    """End an endpoint; told to it and to its subject's others."""
    name = command.endpoint
    ref = _holder(state, name, command.caller)
    if ref is None:
        raise _not_found(name)
    before = state.subject(*ref)
    version = _remove(state, ref, name)
    event = UserEndpointUnregisteredEvent(*state.stamp(f"{ref.kind}/{ref.id}", version), name, ref.id, command.reason)
    return Decision(
        [
            Emission(event, subject=ref, endpoint=(name, ref.id)),
            *presence_changed(state, ref, before, "disconnected"),
            *end_parties(state, ref, name, "left"),
        ]
    )


def watch_endpoint(command: WatchEndpoint, state: State) -> Decision:
    """Replace what an endpoint watches."""
    name = command.endpoint
    ref = _holder(state, name, command.caller)
    if ref is None:
        raise _not_found(name)
    endpoint = state.subject(*ref).endpoints[name]
    if set(endpoint.watch) != set(command.watch):
        _watch(state, ref, name, endpoint.watch, command.watch)
        subject = state.subject(*ref)
        endpoints = {**subject.endpoints, name: replace(endpoint, watch=command.watch)}
        state.save_subject(ref, replace(subject, endpoints=endpoints))
    return NOTHING


def list_endpoints(command: ListEndpoints, state: State) -> Decision:
    """Answer a user's endpoints as the API's ``UserEndpointView``."""
    endpoints = state.subject("user", command.user).endpoints
    return Decision(answer=[_view(state, command.user, name, endpoints[name]) for name in sorted(endpoints)])


def view_endpoint(command: ViewEndpoint, state: State) -> Decision:
    """Answer one endpoint as the API's ``UserEndpointView``; ``userId`` is its subject's id."""
    name = command.endpoint
    ref = _holder(state, name, command.caller)
    if ref is None:
        raise _not_found(name)
    return Decision(answer=_view(state, ref.id, name, state.subject(*ref).endpoints[name]))


def _view(state: State, user: str, name: str, endpoint: Endpoint) -> dict[str, object]:
    return {
        "id": name,
        "userId": user,
        "organizationId": state.organization,
        "keepAliveSeconds": endpoint.keep_alive_seconds,
        "state": state_of(endpoint, state.moment.resumed_ms),
        "version": endpoint.version,
    }


def expire_endpoints(state: State, ref: Ref, clock_ms: int) -> list[Emission]:
    """Do what is due on a subject's endpoints: remind, call sick, remove."""
    endpoints = state.subject(*ref).endpoints
    dues = {name: timing(name, endpoint, state.rules, state.moment.resumed_ms) for name, endpoint in endpoints.items()}
    ended = [name for name, due in dues.items() if due.expire_ms <= clock_ms]
    watched = {key for name in ended for key in endpoints[name].watch if not _is_wide(key)}
    claimed = [name for name in ended if not is_at_home(state, ref, name)]
    state.require([subject_key(*_watched(key)) for key in sorted(watched)], claimed)
    emissions: list[Emission] = []
    for name, due in dues.items():
        if due.expire_ms <= clock_ms:
            if due.sick_ms is not None and endpoints[name].reminded_ms:
                # It was sick for less than the time between two sweeps: the others hear the same story all the same.
                emissions.append(_call_sick(state, ref, name))
            emissions += _expire(state, ref, name)
        elif due.next_ms <= clock_ms:
            emissions += _remind(state, ref, name, due, clock_ms)
    return emissions


def _expire(state: State, ref: Ref, name: str) -> list[Emission]:
    before = state.subject(*ref)
    version = _remove(state, ref, name)
    event = UserEndpointExpiredEvent(*state.stamp(f"{ref.kind}/{ref.id}", version), name, ref.id)
    return [
        Emission(event, subject=ref, endpoint=(name, ref.id)),
        *presence_changed(state, ref, before, "expired"),
        *end_parties(state, ref, name, "expired"),
    ]


def _remind(state: State, ref: Ref, name: str, due: Timing, clock_ms: int) -> list[Emission]:
    endpoint = state.subject(*ref).endpoints[name]
    emissions: list[Emission] = []
    if due.remind_ms is not None and due.remind_ms <= clock_ms:
        endpoint = replace(endpoint, reminded_ms=clock_ms)
        version = _put(state, ref, name, endpoint)
        reminder = UserEndpointKeepAliveReminderEvent(
            *state.stamp(f"{ref.kind}/{ref.id}", version),
            name,
            ref.id,
            endpoint.keep_alive_seconds,
            iso_ms(state.moment.now_ms + due.expire_ms - clock_ms),
        )
        emissions.append(Emission(reminder, subject=ref, endpoint=(name, ref.id)))
        due = timing(name, endpoint, state.rules, state.moment.resumed_ms)
    if due.sick_ms is not None and due.sick_ms <= clock_ms:
        emissions.append(_call_sick(state, ref, name))
    return emissions


def _call_sick(state: State, ref: Ref, name: str) -> Emission:
    version = _put(state, ref, name, replace(state.subject(*ref).endpoints[name], sick=True))
    return _state_changed(state, ref, name, version, SICK, HEALTHY)


def check_watch(names: Iterable[str], field: str) -> tuple[str, ...]:
    """Return a watch list without repetitions: each ``*``, ``<kind>:*`` or ``<kind>:<id>``.

    Raises:
        Refusal: ``invalid_params``, naming the entry's place.
    """
    for place, name in enumerate(names):
        kind, colon, subject = name.partition(":")
        if name != "*" and not (kind in KINDS and colon and is_id(subject)):
            raise Refusal(
                "invalid_params",
                f"{field}[{place}] names no subject: use device:<id>, device:* or * (user, participant)",
            )
    return tuple(dict.fromkeys(names))


def _holder(state: State, name: str, caller: Caller) -> Ref | None:
    """Return who holds an endpoint id; None where nobody does.

    Raises:
        Refusal: ``forbidden``, where the caller may not touch it.
    """
    owner = holder(state, name, state.subject_at)
    if owner is None:
        return None
    is_elsewhere = owner.organization != state.organization
    if caller.user is not None and (is_elsewhere or (owner.kind, owner.subject) != ("user", caller.user)):
        raise Refusal("forbidden", f"userEndpointId {name} belongs to somebody else: use one of your own")
    if is_elsewhere:
        if state.rules.organization_in_topic:
            return None
        raise Elsewhere(owner.organization)
    return Ref(owner.kind, owner.subject)


def _not_found(name: str) -> Refusal:
    return Refusal("not_found", f"userEndpointId {name} is not registered: it expired, or never was; register it anew")


def _put(state: State, ref: Ref, name: str, endpoint: Endpoint) -> int:
    """Save an endpoint whose state or settings changed, with the version that this gives the record."""
    subject = state.subject(*ref)
    key = subject_key(*ref)
    version = state.next_version(key)
    endpoints = {**subject.endpoints, name: replace(endpoint, version=version)}
    return state.save(key, replace(subject, endpoints=endpoints))


def _remove(state: State, ref: Ref, name: str) -> int:
    _watch(state, ref, name, state.subject(*ref).endpoints[name].watch, ())
    subject = state.subject(*ref)
    endpoints = {key: endpoint for key, endpoint in subject.endpoints.items() if key != name}
    version = state.save_subject(ref, replace(subject, endpoints=endpoints))
    release_id(state, ref, name)
    return version


def _watch(state: State, ref: Ref, name: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Enter an endpoint with the subjects that it watches from now on, and strike it from those it no longer does."""
    changes = {watched: watched in after for watched in {*before, *after} if (watched in before) != (watched in after)}
    if not changes:
        return
    owner = subject_key(*ref)
    named = {watched: add for watched, add in changes.items() if not _is_wide(watched)}
    refs = {watched: _watched(watched) for watched in sorted(named)}
    state.require([subject_key(*watched) for watched in refs.values()])
    for watched, subject_ref in refs.items():
        subject = state.subject(*subject_ref)
        watchers = {endpoint: key for endpoint, key in subject.watchers.items() if endpoint != name}
        if named[watched]:
            watchers[name] = owner
        state.save_subject(subject_ref, replace(subject, watchers=watchers))
    wide = {watched: add for watched, add in changes.items() if _is_wide(watched)}
    if wide:
        names = dict(state.watchers().names)
        for watched, add in wide.items():
            watchers = {endpoint: key for endpoint, key in names.pop(watched, {}).items() if endpoint != name}
            if add:
                watchers[name] = owner
            if watchers:
                names[watched] = watchers
        state.save(WATCHERS_KEY, Watchers(names))


def _is_wide(name: str) -> bool:
    return name == "*" or name.endswith(":*")


def _watched(name: str) -> Ref:
    wanted, _, subject = name.partition(":")
    return next(Ref(kind, subject) for kind in KINDS if kind == wanted)


def _state_changed(state: State, ref: Ref, name: str, version: int, now: str, previous: str) -> Emission:
    event = UserEndpointStateChangedEvent(*state.stamp(f"{ref.kind}/{ref.id}", version), name, ref.id, now, previous)
    return Emission(event, subject=ref, endpoint=(name, ref.id))


def _tell_unknown(state: State, name: str) -> Decision:
    if not state.is_first_telling(name, TELL_EXPIRED_EVERY_MS):
        return NOTHING
    event = UserEndpointExpiredEvent(*state.stamp(f"endpoint/{name}", state.moment.now_ms), name, None)
    return Decision([Emission(event, endpoint=(name, ""))])
