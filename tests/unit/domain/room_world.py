"""Worlds with people in rooms, and how to read what these hear."""

from typing import Any

from tests.unit.world import World

NO_MEDIA = dict.fromkeys(("audio", "video", "connected", "phone", "screenshare", "selfMuted"), False)
CHANGED, LISTED, INVALID = "RoomPresenceChangedEvent", "RoomPartiesListedEvent", "MediaSessionInvalidEvent"


def room_of(*users: str, room: str = "T", **rest: Any) -> World:
    """A world where each user is in the room as ``<user>1``, which is its endpoint, too."""
    world = World(**rest)
    for user in users:
        world.register(user, f"{user}1", 86_400)
        world.party(room, user, f"{user}1")
    return world


def heard(answer: dict[str, list[Any]], event_type: str = CHANGED) -> dict[str, list[Any]]:
    """Endpoint -> its events of a type."""
    found = {name: [event for event in events if event["type"] == event_type] for name, events in answer.items()}
    return {name: events for name, events in found.items() if events}


def causes(answer: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {name: [event["cause"] for event in events] for name, events in heard(answer).items()}


def inside(world: World, room: str = "T") -> list[str]:
    return [party["sessionId"] for party in world.call("room_parties", [room])["parties"]]
