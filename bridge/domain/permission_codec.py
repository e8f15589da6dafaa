"""The codec of mute notifications and commands.

Source: reference "call permissions", contract details 32 to 34.
"""

from collections.abc import Mapping, Sequence

from bridge.domain.codec import check_text, read_document
from bridge.domain.commands import SERVICE, Caller, Command, Ignore, MuteParticipant, Person, ReportMute
from bridge.domain.ids import require_id
from bridge.domain.inputs import Input
from bridge.domain.mute_table import MEDIA, MUTE_STATES, in_order
from bridge.domain.values import kind_of
from bridge.errors import Refusal

COMMAND = "mute-participant"
_Fields = Mapping[str, object]


def decode_permissions(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``sessions/{session}/permissions``, or ``.../permissions/{participant}``, which addresses one.

    Raises:
        Refusal: it cannot be taken.
    """
    session = require_id(ids[0], "session in the topic")
    addressed = Person(require_id(ids[1], "participant in the topic")) if len(ids) > 1 else None
    if inbound.retained:
        return [Ignore()]  # a replay at a subscription: what it announced has been taken, and may be over
    check_text(inbound.payload)
    fields = read_document(inbound.payload)
    if not isinstance(fields, dict):
        raise Refusal("invalid_field", f"payload is {kind_of(fields)}: send an object")
    kind = fields.get("type")
    if kind == COMMAND:
        return [_command(session, addressed, fields)]
    if kind is not None:
        raise Refusal("unknown_type", f"type is not {COMMAND}: leave it out of a notification")
    return [_notification(session, addressed, fields)]


def _notification(session: str, addressed: Person | None, fields: _Fields) -> ReportMute:
    target, mute_all = read_target(fields), read_flag(fields, "muteAll")
    if target is None and addressed is None and not mute_all:
        raise Refusal(
            "not_addressed", "userId is null and muteAll false: name the participant there, or at the topic's end"
        )
    states, options = read_states(fields), fields.get("mediaOptions")
    if options is not None:
        changed = read_media(fields, "mediaOptions")
        states = {medium: state for medium, state in states.items() if medium in changed}
    return ReportMute(
        session,
        addressed,
        target,
        read_person(fields, "adminId"),
        mute_all,
        read_flag(fields, "stateUpdated", default=True),
        read_flag(fields, "unmute"),
        states,
        read_media(fields, "unmuteOptions"),
        read_media(fields, "requestedMedia"),
        read_room(fields),
    )


def _command(session: str, addressed: Person | None, fields: _Fields) -> MuteParticipant:
    mute_all = read_flag(fields, "muteAll")
    return read_command(session, read_target(fields) or (None if mute_all else addressed), fields, mute_all)


def read_command(
    session: str,
    target: Person | None,
    fields: _Fields,
    mute_all: bool,
    *,
    is_call: bool = False,
    caller: Caller = SERVICE,
) -> MuteParticipant:
    """Read a command's fields. Where it names a target, that counts and not ``mute_all``.

    Raises:
        Refusal: ``not_addressed``, ``mixed_mute_states``, or ``invalid_field``.
    """
    if target is None and not mute_all:
        raise Refusal("not_addressed", "participantId is null: name a participant, or say muteAll for everybody")
    states, requested = read_states(fields), read_media(fields, "requestedMedia")
    if len(set(states.values())) > 1:
        raise Refusal(
            "mixed_mute_states", "muteStates holds different values: send one command for the media of each value"
        )
    if not states and not requested:
        raise Refusal("invalid_field", "muteStates and requestedMedia are empty: name a medium in one of them")
    admin = read_person(fields, "adminId")
    return MuteParticipant(session, target, admin, states, requested, read_room(fields), is_call, caller)


def read_target(fields: _Fields) -> Person | None:
    """Read whom something concerns: ``userId``, or ``participantId`` as it is called on the wire."""
    return read_person(fields, "participantId" if fields.get("userId") is None else "userId")


def read_person(fields: _Fields, name: str) -> Person | None:
    """Read somebody: an id, or ``{"id", "type", "deviceIdx"}``; None where the field is null or absent.

    Raises:
        Refusal: ``empty_id`` or ``invalid_field``, naming the field.
    """
    value = fields.get(name)
    device = None
    if isinstance(value, dict):
        device, value = value.get("deviceIdx"), value.get("id")
        if isinstance(device, float) and device.is_integer():
            device = int(device)
        if device is not None and (not isinstance(device, int) or isinstance(device, bool)):
            raise Refusal("invalid_field", f"{name}.deviceIdx is {kind_of(device)}: send an integer")
        name += ".id"
    elif value is None:
        return None
    if not isinstance(value, str):
        raise Refusal("invalid_field", f"{name} is {kind_of(value)}: send an id as text")
    return Person(require_id(value, name), device)


def read_states(fields: _Fields) -> dict[str, str]:
    """Read ``muteStates``: medium -> mute state; none where it is null or absent.

    Raises:
        Refusal: ``invalid_field``: an unknown medium or state.
    """
    states = fields.get("muteStates")
    if states is None:
        return {}
    if not isinstance(states, dict):
        raise Refusal("invalid_field", f"muteStates is {kind_of(states)}: send an object of medium and state")
    if not states.keys() <= set(MEDIA):
        raise Refusal("invalid_field", f"muteStates names a medium that is none of {', '.join(MEDIA)}")
    if any(state not in MUTE_STATES for state in states.values()):
        raise Refusal("invalid_field", f"muteStates holds a state that is none of {', '.join(MUTE_STATES)}")
    return states


def read_media(fields: _Fields, name: str) -> tuple[str, ...]:
    """Read a list of media; none where it is null or absent.

    Raises:
        Refusal: ``invalid_field``: an unknown medium.
    """
    media = fields.get(name)
    if media is None:
        return ()
    if not isinstance(media, list):
        raise Refusal("invalid_field", f"{name} is {kind_of(media)}: send an array of media")
    if any(medium not in MEDIA for medium in media):
        raise Refusal("invalid_field", f"{name} names a medium that is none of {', '.join(MEDIA)}")
    return in_order(media)


def read_room(fields: _Fields) -> str:
    """Read ``roomId``, a room of the call; ``""`` for the main one, where it is null or absent.

    Raises:
        Refusal: ``empty_id`` or ``invalid_field``.
    """
    room = fields.get("roomId")
    if room is None:
        return ""
    if not isinstance(room, str):
        raise Refusal("invalid_field", f"roomId is {kind_of(room)}: send text, or null for the main room")
    return require_id(room, "roomId")


def read_flag(fields: _Fields, name: str, *, default: bool = False) -> bool:
    """Read a boolean; ``default`` where it is null or absent.

    Raises:
        Refusal: ``invalid_field``.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refusal("invalid_field", f"{name} is {kind_of(value)}: send true or false")
    return value
