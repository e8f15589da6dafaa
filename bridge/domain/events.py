"""Events: facts in the past, as they stand on the wire (DESIGN 4). The class's name is the event's ``type``.

The first five fields are common to all and come from `bridge.domain.state.State.stamp`. Relays carry the fields as they
were received and are plain mappings, made by `relayed`.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from bridge.domain.values import Kind

EVENT_FORM = "a noun and a verb at least, like UserEndpointExpiredEvent, at most 128 characters"
_MAXIMUM_TYPE = 128
# The language of the source's [A-Z][A-Za-z0-9]*[A-Z][A-Za-z0-9]*Event, written so that no text is read twice.
_EVENT_TYPE = re.compile(r"[A-Z][a-z0-9]*[A-Z][A-Za-z0-9]*Event")


def is_event_type(text: str) -> bool:
    """Tell whether ``text`` can be an event's ``type``; see `EVENT_FORM`."""
    return len(text) <= _MAXIMUM_TYPE and _EVENT_TYPE.fullmatch(text) is not None


class Event(msgspec.Struct, frozen=True, tag_field="type", tag=True, rename="camel"):
    """What all events carry.

    Attributes:
        id: time-ordered and unique.
        timestamp: ISO-8601 UTC with three digits of milliseconds.
        organization_id: whose event it is.
        about: the record it is about: ``user/ann``, ``session/s1``.
        version: that record's version.
    """

    id: str
    timestamp: str
    organization_id: str
    about: str
    version: int


class PresenceChanged(Event, frozen=True):
    """A subject came, went, or became busy or free."""

    uuid: str
    online: bool
    busy: bool
    status: msgspec.Raw
    cause: str


class UserPresenceChangedEvent(PresenceChanged, frozen=True):
    """Presence of a user."""


class ParticipantPresenceChangedEvent(PresenceChanged, frozen=True):
    """Presence of a participant."""


class DevicePresenceChangedEvent(PresenceChanged, frozen=True):
    """Presence of a device."""


class StatusChanged(Event, frozen=True):
    """A subject's status document changed."""

    uuid: str
    status: msgspec.Raw
    status_timestamp: int | float


class UserStatusChangedEvent(StatusChanged, frozen=True):
    """Status of a user."""


class ParticipantStatusChangedEvent(StatusChanged, frozen=True):
    """Status of a participant."""


class DeviceStatusChangedEvent(StatusChanged, frozen=True):
    """Status of a device."""


class EndpointEvent(Event, frozen=True):
    """Something about one endpoint; ``user_id`` is null where nobody holds the id."""

    user_endpoint_id: str
    user_id: str | None


class UserEndpointRegisteredEvent(EndpointEvent, frozen=True):
    """An endpoint is new."""


class UserEndpointUnregisteredEvent(EndpointEvent, frozen=True):
    """An endpoint was ended by its owner or a service."""

    reason: str | None


class UserEndpointExpiredEvent(EndpointEvent, frozen=True):
    """An endpoint sent no keepalive in time, or sent one after it was gone."""


class UserEndpointStateChangedEvent(EndpointEvent, frozen=True):
    """An endpoint became ``SICK`` or ``HEALTHY``."""

    state: str
    previous: str


class UserEndpointKeepAliveReminderEvent(EndpointEvent, frozen=True):
    """A keepalive is due. Its type is renamed by ``endpoints.reminder_event``."""

    keep_alive_seconds: int
    expires_at: str


class MediaStateChangedEvent(Event, frozen=True):
    """What a participant of a session sends or receives changed, or what does not add up about it."""

    session_id: str
    participant_id: str
    state: str
    previous: str
    connections: int
    send_streams: int
    recv_streams: int
    claimed: str | None
    anomalies: tuple[str, ...]


class Category(StrEnum):
    """What a room event is about, as it stands on the wire (reference "rooms and media" B)."""

    ONLINE = "app.event.presence.party.online"
    LEAVES = "app.event.presence.party.leaves"
    REQUEST = "app.event.presence.request.parties"
    REMOVED = "party.removed"
    TYPING = "party.typing"
    INVALID = "media.session.invalid"


class RoomPartiesListedEvent(Event, frozen=True):
    """Everybody in a room, each with its version: ``content`` is ``{"data": [...]}``."""

    topic_id: str
    content: dict[str, object]


class RoomPartyKeepAliveReminderEvent(Event, frozen=True):
    """A participant of a room has to be refreshed until ``expires_at``, or it is out."""

    topic_id: str
    room_connection_id: str
    keep_alive_seconds: int
    expires_at: str


class MediaSessionInvalidEvent(Event, frozen=True):
    """A room event could not be taken; ``loopback_metadata`` as it was received."""

    topic_id: str
    reason: str
    loopback_metadata: object


class Effective(msgspec.Struct, frozen=True):
    """What a participant may do with one medium: the stricter of the states for it, a one-time grant, the result."""

    state: str
    once: bool
    unlocked: bool


class CallPermissionsChangedEvent(Event, frozen=True):
    """What a participant of a session may do, medium by medium, and what of it changed.

    Attributes:
        kind: ``global`` to each member, ``personal`` or ``once`` to the participant, ``participant`` to the admins.
        previous: what it might do before, of the media in ``changed``.
        devices_off: media in ``changed`` whose devices must go off where they are on.
        device_idx: the participant's device that a notification named; ``admin_device_idx`` the author's.
    """

    session_id: str
    kind: str
    participant_id: str
    media: dict[str, Effective]
    previous: dict[str, Effective]
    changed: tuple[str, ...]
    cause: str
    admin_id: str | None
    devices_off: tuple[str, ...]
    device_idx: int | msgspec.UnsetType = msgspec.UNSET
    admin_device_idx: int | msgspec.UnsetType = msgspec.UNSET


class MediaAttentionRequestedEvent(Event, frozen=True):
    """A participant is asked to turn media on, alone or as one of all; its raised hand was lowered by that."""

    session_id: str
    participant_id: str
    requested_media: tuple[str, ...]
    mute_all: bool
    admin_id: str | None
    hand_lowered: bool
    device_idx: int | msgspec.UnsetType = msgspec.UNSET
    admin_device_idx: int | msgspec.UnsetType = msgspec.UNSET


PRESENCE_CHANGED: dict[Kind, type[PresenceChanged]] = {
    "user": UserPresenceChangedEvent,
    "participant": ParticipantPresenceChangedEvent,
    "device": DevicePresenceChangedEvent,
}
STATUS_CHANGED: dict[Kind, type[StatusChanged]] = {
    "user": UserStatusChangedEvent,
    "participant": ParticipantStatusChangedEvent,
    "device": DeviceStatusChangedEvent,
}


def relayed(event_type: str, stamp: tuple[str, str, str, str, int], fields: Mapping[str, object]) -> dict[str, object]:
    """Return a relay: the fields as received, under the common fields of ``stamp``, which win."""
    event_id, timestamp, organization, about, version = stamp
    return {
        **fields,
        "type": event_type,
        "id": event_id,
        "timestamp": timestamp,
        "organizationId": organization,
        "about": about,
        "version": version,
    }
