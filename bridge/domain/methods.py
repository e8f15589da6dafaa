"""The RPC methods: one table of name, parameters, who may call, and the command that each becomes.

Source: DESIGN 7, contract details 11, 12, 33, 38, 41.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from bridge.domain import parameters
from bridge.domain.audit import MAXIMUM_AUDIT, note_of, start_of
from bridge.domain.clock import parse_time
from bridge.domain.codec import read_document
from bridge.domain.commands import (
    AuditFilter,
    Caller,
    Command,
    Explain,
    KeepEndpoint,
    ListEndpoints,
    ListSubjects,
    MediaStateOf,
    PermissionsOf,
    ReadAudit,
    RegisterEndpoint,
    RoomParties,
    SendEvent,
    SessionMembers,
    SessionsOf,
    UnregisterEndpoint,
    UpdateDeviceStatus,
    ViewEndpoint,
    WatchEndpoint,
)
from bridge.domain.endpoints import check_watch
from bridge.domain.ids import MAXIMUM_ID_LENGTH, is_endpoint_id, is_id, is_organization, new_endpoint_id, sent_key
from bridge.domain.masks import compile_masks
from bridge.domain.parameters import invalid, read_parameters
from bridge.domain.permission_codec import read_command, read_person
from bridge.domain.rules import Rules
from bridge.domain.sending import digest, read_event
from bridge.domain.subjects import MAXIMUM_ANSWER
from bridge.domain.values import KINDS, Kind
from bridge.errors import Refusal

MAXIMUM_REASON_LENGTH = 1_024  # told to each of the subject's endpoints


class Call(NamedTuple):
    """Who calls, and what a method needs to build its command.

    Attributes:
        new_random: makes unguessable text of ``A-Z a-z 0-9 - _`` for an id that the server makes.
        idempotency_key: what the caller knows a repetition by, empty where it gave none.
        service: which service calls, where it says so: a repetition is one of the same caller.
        may_name_organization: a service may name another organization than the call's own.
    """

    caller: Caller
    rules: Rules
    new_random: Callable[[], str]
    idempotency_key: str = ""
    service: str | None = None
    may_name_organization: bool = True


class Method(NamedTuple):
    """One row of the table, which services may call.

    Attributes:
        users: whether a user may call it, too, for what is its own.
        ops: whether operations may call it, too: it only asks.
    """

    params: type[parameters.Params]
    build: Callable[[Any, Call], Command]
    users: bool = False
    ops: bool = False


def _id(value: str, field: str) -> str:
    if not is_id(value):
        raise invalid(f"{field} is not a safe id: use 1..128 characters without + # /, control characters, leading $")
    return value


def _participant(value: str | None) -> str | None:
    return None if value is None else _id(value, "participant")


def _kind(value: str) -> Kind:
    if value not in KINDS:
        raise invalid(f"kind is none of {', '.join(KINDS)}")
    return value


def _own_user(given: str | None, call: Call) -> str:
    """Return the user that a call is about: the caller itself, or for a service the one that it names."""
    user = call.caller.user
    if user is None:
        if given is None:
            raise invalid("userId is missing: name the user")
        return _id(given, "userId")
    if given not in (None, user):
        raise Refusal("forbidden", "userId is another user's: leave it out")
    return user


def _endpoint_id(value: str) -> str:
    if not is_endpoint_id(value):
        raise invalid("userEndpointId: use 1..128 of A-Z a-z 0-9 . _ ~ - @")
    return value


def _listing(what: str, kind: Kind) -> Method:
    def build(params: parameters.Page, _: Call) -> Command:
        if params.limit is not None and not 1 <= params.limit <= MAXIMUM_ANSWER:
            raise invalid(f"limit is {params.limit}: use 1..{MAXIMUM_ANSWER}")
        return ListSubjects(kind, what, params.limit, params.cursor)

    return Method(parameters.Page, build, ops=True)


def _update_device_status(params: parameters.DeviceStatus, _: Call) -> Command:
    time_ms, timestamp = parse_time(params.timestamp, "timestamp")
    document = params.status.encode()
    read_document(document)
    return UpdateDeviceStatus(_id(params.uuid, "uuid"), msgspec.Raw(document), time_ms, timestamp)


def _register(params: parameters.Register, call: Call) -> Command:
    rules = call.rules
    kind = _kind(params.kind)
    if kind != "user" and call.caller.user is not None:
        raise Refusal("forbidden", "kind is not user: only a service registers endpoints of others")
    subject = _own_user(params.user_id, call)
    seconds = params.keep_alive_seconds
    low, high = rules.minimum_keep_alive_seconds, rules.maximum_keep_alive_seconds
    if seconds is None:
        raise invalid(f"keepAliveSeconds is missing: send an integer {low}..{high}")
    if not low <= seconds <= high:
        raise invalid(f"keepAliveSeconds is {seconds}: send an integer {low}..{high}")
    random = call.new_random()
    endpoint, made = params.user_endpoint_id, new_endpoint_id(subject, random)
    if rules.bound_ids and made == random:
        raise invalid(
            f"userId can have no endpoint here: ids are <userId>~<random> (endpoints.id_policy = bound), so that the "
            f"broker's rules carry them; use at most {MAXIMUM_ID_LENGTH - 1 - len(made)} of A-Z a-z 0-9 . _ - @"
        )
    if endpoint is None:
        endpoint = made
    elif rules.bound_ids and (endpoint.count("~") != 1 or endpoint.partition("~")[0] != subject):
        raise invalid(f"userEndpointId must be {subject}~<text without ~> here (endpoints.id_policy = bound)")
    else:
        endpoint = _endpoint_id(endpoint)
    watch = None if params.watch is None else _watch_names(params.watch, rules)
    return RegisterEndpoint(kind, subject, endpoint, seconds, params.server_keep_alive_reminder_on, watch)


def _unregister(params: parameters.Unregister, call: Call) -> Command:
    reason = params.reason
    if reason is not None and len(reason) > MAXIMUM_REASON_LENGTH:
        raise invalid(f"reason has {len(reason)} characters: at most {MAXIMUM_REASON_LENGTH}")
    return UnregisterEndpoint(_endpoint_id(params.user_endpoint_id), reason, call.caller)


def _watch_names(names: list[str], rules: Rules) -> tuple[str, ...]:
    if len(names) > rules.maximum_watch:
        raise Refusal("quota_exceeded", f"watch has {len(names)} names: at most {rules.maximum_watch}")
    return check_watch(names, "watch")


def _send(params: parameters.Send, call: Call) -> Command:
    masks = compile_masks(params.masks)
    given = read_event(bytes(params.event), call.rules.event_limit_bytes)
    if params.user_id is None:
        raise invalid("userId is missing: name whom to send to")
    user = _id(params.user_id, "userId")
    endpoint = None if params.user_endpoint_id is None else _endpoint_id(params.user_endpoint_id)
    qos = 1 if params.qos == 1 and params.qos is not True else 0
    key = body = ""
    if call.idempotency_key or given.id:
        # One event may go to several users, each with a call of its own; a key that a caller gave names one call.
        named = ("key", call.idempotency_key) if call.idempotency_key else ("event", given.id, user, endpoint)
        key = sent_key(digest(call.caller.user, call.service, *named))
        body = digest(given.document, user, endpoint, qos, params.masks or [])
    note = note_of(params.event, given.document, masks, user)
    hits = tuple(masks.non_string_hits) if any(masks.non_string_hits) else ()
    return SendEvent(params.event, note, given.id, user, endpoint, qos, params.outcomes, key, body, hits)


def _events(params: parameters.Events, _: Call) -> Command:
    limit = MAXIMUM_AUDIT if params.limit is None else params.limit
    if not 1 <= limit <= MAXIMUM_AUDIT:
        raise invalid(f"limit is {limit}: use 1..{MAXIMUM_AUDIT}")
    start_of(params.since)
    wanted = params.filter or parameters.AuditFilter()
    return ReadAudit(params.since, AuditFilter(wanted.user_id, wanted.type, wanted.room, wanted.session), limit)


def _mute(params: parameters.Mute, call: Call) -> Command:
    fields = {field.encode_name: getattr(params, field.name) for field in msgspec.structs.fields(params)}
    user, admin = call.caller.user, read_person(fields, "adminId")
    if user is not None:
        if admin is not None and admin.id != user:
            raise Refusal("forbidden", "adminId is another user's: leave it out")
        fields["adminId"] = user
    session, target = _id(params.session, "session"), read_person(fields, "participant")
    return read_command(session, target, fields, params.mute_all, is_call=True, caller=call.caller)


METHODS: dict[str, Method] = {
    **{f"{what}_{kind}s": _listing(what, kind) for what in ("online", "busy", "status") for kind in KINDS},
    "update_device_status": Method(parameters.DeviceStatus, _update_device_status),
    "sessions_of": Method(parameters.Subject, lambda p, _: SessionsOf(_kind(p.kind), _id(p.uuid, "uuid")), ops=True),
    "explain": Method(parameters.Subject, lambda p, _: Explain(_kind(p.kind), _id(p.uuid, "uuid")), ops=True),
    "session_members": Method(parameters.Session, lambda p, _: SessionMembers(_id(p.session, "session")), ops=True),
    "media_state": Method(
        parameters.Participant,
        lambda p, call: MediaStateOf(_id(p.session, "session"), _participant(p.participant), call.caller),
        users=True,
        ops=True,
    ),
    "room_parties": Method(parameters.Room, lambda p, _: RoomParties(_id(p.room, "room")), ops=True),
    "call_permissions": Method(
        parameters.Participant,
        lambda p, call: PermissionsOf(_id(p.session, "session"), _participant(p.participant), call.caller),
        users=True,
        ops=True,
    ),
    "mute_participant": Method(parameters.Mute, _mute, users=True),
    "register_endpoint": Method(parameters.Register, _register, users=True),
    "keepalive_endpoint": Method(
        parameters.Endpoint,
        lambda p, call: KeepEndpoint(_endpoint_id(p.user_endpoint_id), True, call.caller),
        users=True,
    ),
    "unregister_endpoint": Method(parameters.Unregister, _unregister, users=True),
    "watch_endpoint": Method(
        parameters.Watch,
        lambda p, call: WatchEndpoint(_endpoint_id(p.user_endpoint_id), _watch_names(p.watch, call.rules), call.caller),
        users=True,
    ),
    "view_endpoint": Method(
        parameters.Endpoint,
        lambda p, call: ViewEndpoint(_endpoint_id(p.user_endpoint_id), call.caller),
        users=True,
        ops=True,
    ),
    "send_event": Method(parameters.Send, _send, users=True),
    "events": Method(parameters.Events, _events, ops=True),
    "list_endpoints": Method(
        parameters.User, lambda p, call: ListEndpoints(_own_user(p.user_id, call)), users=True, ops=True
    ),
}

# The codes that an RPC answers with (contract details 5); whatever else goes wrong with a request is its parameters.
RPC_CODES = frozenset(
    {
        *("invalid_params", "unknown_method", "forbidden", "not_found", "conflict"),
        *("too_many", "too_large", "quota_exceeded", "corrupt_record", "invalid_event", "invalid_mask"),
        "unavailable",
        "mixed_mute_states",
    }
)


def decode_call(
    method: str, payload: bytes, call: Call, organization: str, *, strict: bool = True
) -> tuple[str, Command]:
    """Decode an RPC.

    Args:
        method: its name.
        payload: its parameters as JSON text.
        call: who calls.
        organization: of the caller.
        strict: refuse unknown parameters; else they are passed over.

    Returns:
        The organization that it concerns (``organization`` unless a service names another one) and the command.

    Raises:
        Refusal: with one of `RPC_CODES`.
    """
    row = METHODS.get(method)
    if row is None:
        raise Refusal("unknown_method", f"no method of this name: use one of {', '.join(METHODS)}")
    if call.caller.user is not None and not row.users:
        raise Refusal("forbidden", f"{method} is for services")
    try:
        params = read_parameters(row.params, payload, strict=strict)
        named = getattr(params, "organization_id", None)
        if named is not None and named != organization:
            if call.caller.user is not None or not call.may_name_organization:
                raise Refusal("forbidden", "organizationId is another organization's: leave it out")
            if not is_organization(named):
                raise invalid("organizationId: use 1..64 of A-Z a-z 0-9 . _ -")
            organization = named
        return organization, row.build(params, call)
    except Refusal as refusal:
        if refusal.code in RPC_CODES:
            raise
        raise invalid(refusal.message) from None
