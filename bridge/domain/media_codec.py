"""The codec of what a participant of a session reports of itself: its media, devices, hand, room and roles.

Source: DESIGN 4, reference "rooms and media" A, "call permissions", contract details 28.
"""

import re
from collections.abc import Mapping, Sequence

from bridge.domain.codec import check_text, read_document
from bridge.domain.commands import Command, Ignore, ReportParticipant
from bridge.domain.ids import require_id
from bridge.domain.inputs import Input
from bridge.domain.media_table import Counters
from bridge.domain.mute_table import ROLES
from bridge.domain.permission_codec import read_flag, read_room
from bridge.domain.values import Kind, kind_of
from bridge.errors import Refusal

LARGEST_COUNT = 1_000_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_DEVICES = {"isAudioEnabled": "AUDIO", "isVideoEnabled": "VIDEO", "isScreenSharingEnabled": "SCREEN_SHARING"}
_MEDIA_FIELDS = frozenset(("event", "state", "connections", "sessions", "sendStreams", "recvStreams"))
_Fields = Mapping[str, object]


def decode_media(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``sessions/{session}/participants/{participant}/status``.

    Raises:
        Refusal: it cannot be taken.
    """
    return [_report(ids[0], ids[1], "participant in the topic", inbound, None)]


def decode_client_media(ids: Sequence[str], inbound: Input) -> list[Command]:
    """Decode ``clients/{user}/sessions/{session}/status``: the same by the user itself, who gives itself no role.

    Raises:
        Refusal: it cannot be taken.
    """
    return [_report(ids[1], ids[0], "user in the topic", inbound, "user")]


def _report(session: str, participant: str, place: str, inbound: Input, kind: Kind | None) -> Command:
    require_id(session, "session in the topic")
    require_id(participant, place)
    if inbound.retained:
        return Ignore()  # a replay at a subscription: no telling of which call it was
    check_text(inbound.payload)
    fields = read_document(inbound.payload)
    if not isinstance(fields, dict):
        raise Refusal("invalid_field", f"payload is {kind_of(fields)}: send an object")
    if kind is not None and fields.get("roles") is not None:
        raise Refusal("not_allowed", "roles are a service's to give: leave them out")
    report = ReportParticipant(
        session,
        participant,
        None if _MEDIA_FIELDS.isdisjoint(fields) else read_counters(fields),
        None if fields.get("roles") is None else _roles(fields["roles"]),
        read_room(fields) if "roomId" in fields else None,
        None if fields.get("mediaSettings") is None else _devices(fields["mediaSettings"]),
        None if fields.get("handRaised") is None else read_flag(fields, "handRaised"),
        kind,
    )
    if report == ReportParticipant(session, participant, kind=kind):
        raise Refusal("invalid_field", "payload says nothing: send counters, roles, mediaSettings, roomId, handRaised")
    return report


def read_counters(fields: _Fields) -> Counters:
    """Read a media status: three counters, and texts of the event and of the state after it, which may be left out.

    Raises:
        Refusal: ``invalid_field``, naming the field.
    """
    for name in ("event", "state"):
        if not isinstance(fields.get(name, ""), str | None):
            raise Refusal("invalid_field", f"{name} is {kind_of(fields[name])}: send text")
    connections = "sessions" if "sessions" in fields and fields.get("connections") is None else "connections"
    counts = (_count(fields, connections), _count(fields, "sendStreams"), _count(fields, "recvStreams"))
    claimed = fields.get("state")
    return Counters(counts, claimed if isinstance(claimed, str) else None)


def _count(fields: _Fields, name: str) -> int:
    value = fields.get(name)
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refusal("invalid_field", f"{name} is {kind_of(value)}: send an integer, 0 for none")
    if abs(value) > LARGEST_COUNT:
        raise Refusal("invalid_field", f"{name} is beyond any call: at most {LARGEST_COUNT}")
    return value


def _roles(roles: object) -> tuple[str, ...]:
    """Return the roles, the creator's first."""
    if not isinstance(roles, list) or any(role not in ROLES for role in roles):
        raise Refusal("invalid_field", f"roles is no array of {', '.join(ROLES)}: send one, empty for none")
    return tuple(role for role in ROLES if role in roles)


def _devices(settings: object) -> dict[str, bool]:
    if not isinstance(settings, dict):
        raise Refusal("invalid_field", f"mediaSettings is {kind_of(settings)}: send an object")
    return {medium: read_flag(settings, name) for name, medium in _DEVICES.items() if settings.get(name) is not None}
