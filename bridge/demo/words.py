"""What the demo says of each event, in plain words."""

import json
from collections.abc import Callable, Mapping
from typing import Any

Event = Mapping[str, Any]


def in_words(event: Event) -> str:
    """What an event says."""
    told = _WORDS.get(event["type"])
    return told(event) if told else ""


def _presence(event: Event) -> str:
    online = "online" if event["online"] else "offline"
    return f"{event['uuid']} is {online}{', in a call' if event['busy'] else ''} ({event['cause']})"


def _status(event: Event) -> str:
    return f"{event['uuid']} says {json.dumps(event['status'])}"


def _room(event: Event) -> str:
    return f"{event['sender']['_id']} {event['cause']} the room"


def _permissions(event: Event) -> str:
    may = (
        f"{medium} is {'open' if view['unlocked'] else 'locked'} to {event['participantId']}"
        f"{', once' if view['once'] else ''}"
        for medium, view in event["media"].items()
        if medium in event["changed"]
    )
    return f"{'; '.join(may)} ({event['cause']})"


_WORDS: dict[str, Callable[[Event], str]] = {
    "UserPresenceChangedEvent": _presence,
    "DevicePresenceChangedEvent": _presence,
    "UserStatusChangedEvent": _status,
    "DeviceStatusChangedEvent": _status,
    "JoinSessionEvent": lambda event: f"{event['sessionCreatorName']} calls: {event['joinMsg']}",
    "JoinSessionReplyEvent": lambda event: f"{event['userUuid']} answers {event['joinReply']}",
    "LeaveSessionEvent": lambda event: f"{', '.join(event['leavingUsers'])} left the call",
    "StopSessionEvent": lambda _: "the call is over",
    "RoomPresenceChangedEvent": _room,
    "RoomPartiesListedEvent": lambda event: (
        f"in the room: {', '.join(party['sender']['_id'] for party in event['content']['data'])}"
    ),
    "CallPermissionsChangedEvent": _permissions,
    "MediaAttentionRequestedEvent": lambda event: (
        f"{event['adminId']} asks {event['participantId']} to turn on {', '.join(event['requestedMedia'])}"
    ),
    "UserEndpointRegisteredEvent": lambda event: f"{event['userId']} now has {event['userEndpointId']} too",
    "UserEndpointUnregisteredEvent": lambda event: f"{event['userEndpointId']} was given up",
    "UserEndpointKeepAliveReminderEvent": lambda event: f"are you there? ends at {event['expiresAt'][11:23]}",
    "UserEndpointStateChangedEvent": lambda event: (
        f"{event['userEndpointId']}: {event['previous']} -> {event['state']}"
    ),
    "UserEndpointExpiredEvent": lambda event: f"{event['userEndpointId']} is gone",
}
