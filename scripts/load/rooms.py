"""The work ``rooms``: a party joins, and is told to everybody in the room. Open loop, as people do.

Every party of the rooms is a user with one endpoint of its own. The joiners are users without one, so that each join is
as many deliveries as the room had parties at first; their rosters are made all the same.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from scripts.load.stand import Say, Stand, run_loadgen

WARM_UP_SECONDS, DRAIN_SECONDS = 1.0, 5.0
WINDOW = 900  # joins on their way at once: below the broker's receive maximum


class Crowd(NamedTuple):
    """Rooms of one size, and how many join them a second."""

    rooms: int
    parties: int
    joins_per_second: int

    @property
    def name(self) -> str:
        """The crowd in words."""
        return f"{self.joins_per_second} joins/s into {self.rooms} room{'s' * (self.rooms > 1)} of {self.parties}"

    def room_of(self, number: int) -> str:
        """The room of the user of that number."""
        return room(self.rooms, number % self.rooms)


CROWDS = (Crowd(rooms=50, parties=100, joins_per_second=100), Crowd(rooms=1, parties=500, joins_per_second=20))


def room(rooms: int, number: int | str) -> str:
    """The name of a room; each crowd has rooms of its own. ``number`` may be the load generator's placeholder."""
    return f"of{rooms}-{number:06d}" if isinstance(number, int) else f"of{rooms}-{number}"


def online(user: str, party: str, **fields: object) -> str:
    """A room event that joins."""
    media = dict.fromkeys(("audio", "video", "connected", "phone", "screenshare", "selfMuted"), False)
    content = {"sessionId": party, "idle": False, "offline": False, "role": "member", "mediaSession": media}
    sender = {"_id": user, "type": "user", "displayname": f"User {user}", "username": f"{user}@example.org"}
    event = {"category": "app.event.presence.party.online", "sender": sender, "content": content, "receivers": []}
    return json.dumps({**event, **fields}, separators=(",", ":"))


def measure(stand: Stand, loadgen: Path, seconds: float, say: Say) -> list[dict[str, Any]]:
    """Fill the rooms and let people join, one crowd after the other.

    Raises:
        StandError: a part of the stand failed.
        subprocess.TimeoutExpired: the load generator took too long.
    """
    results = []
    for crowd in CROWDS:
        users = crowd.rooms * crowd.parties
        say(f"filling {crowd.rooms} rooms with {crowd.parties} parties each")
        stand.register(users, lambda number, user, endpoint: (_topic(crowd, number), online(user, endpoint)))  # noqa: B023 - called at once
        line = _join(stand, loadgen, crowd, seconds)
        say(f"{crowd.name}: {line['rate']:,.0f} deliveries/s, p99 {line['p99_ms']:.1f} ms")
        results.append({"crowd": crowd._asdict(), "name": crowd.name, "figures": line})
    return results


def _topic(crowd: Crowd, number: int) -> str:
    return f"presence/rooms/{crowd.room_of(number)}"


def _join(stand: Stand, loadgen: Path, crowd: Crowd, seconds: float) -> dict[str, Any]:
    template = stand.folder / "join.json"
    template.write_text(online("j" + "#" * 10, f"of{crowd.rooms}-" + "#" * 10, mark="#" * 10))
    options: dict[str, object] = {
        "topic": f"presence/rooms/{room(crowd.rooms, '~~~~~~')}",
        "sub": "users/endpoints/#",
        "key": '"mark"',
        "template": template,
        "users": crowd.rooms,
        "fanout": crowd.parties,
        "qos": 1,
        "window": WINDOW,
        "rate": crowd.joins_per_second,
        "warmup": WARM_UP_SECONDS,
        "duration": seconds,
        "drain": DRAIN_SECONDS,
    }
    return run_loadgen(
        loadgen, stand, options, ("bridge", "redis", "broker"), WARM_UP_SECONDS + seconds + DRAIN_SECONDS
    )


def table(results: list[dict[str, Any]]) -> str:
    """The results as a table of Markdown."""
    head = ["work", "deliveries/s", "p50 ms", "p99 ms", "max ms", "bridge us", "redis us", "broker us", "lost"]
    rows = [head, ["-" * len(name) for name in head]]
    for result in results:
        figures = result["figures"]
        cpu_us = figures["cpu_us_per_msg"]
        times = [f"{figures[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")]
        costs = [f"{cpu_us[name]:.1f}" for name in ("bridge", "redis", "broker")]
        rows.append([result["name"], f"{figures['rate']:,.0f}", *times, *costs, str(figures["lost"])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )
