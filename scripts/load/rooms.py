"""The work ``rooms``: a party joins, and is told to everybody in the room. Open loop, as people do.

Every party of the rooms is a user with one endpoint of its own. The joiners are users without one, so that each join is
as many deliveries as the room had parties at first; their rosters are made all the same.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from scripts.load.house import Message, feed, registrations
from scripts.load.stand import PRIMARY, Bridge, Stand, run_loadgen
from scripts.load.work import Cell, Column, Plan, Result, Table, Verdict

WARM_UP_SECONDS, DRAIN_SECONDS = 1.0, 5.0
WINDOW = 900  # joins on their way at once: below the broker's receive maximum

METHOD = """\
People join rooms that are full already, at a fixed rate (open loop), and each join is told to everybody who was there.
QoS 1 in and out; latency from the time at which the join should have been sent to each of its deliveries; CPU in us per
delivery. A join reads the room's index and, for the roster, the records of its parties; it writes its own record, its
user's and the room's small one, and is told in one batch."""


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


def measure(plan: Plan) -> Result:
    """Fill the rooms and let people join, one crowd after the other.

    Raises:
        StandError: a part of the stand failed.
    """
    lines = []
    with Stand(plan.flavour) as stand:
        made = stand.configure(PRIMARY)
        for crowd in CROWDS:  # all before a bridge has held the lease: then nobody else may write
            plan.say(f"rooms: filling {crowd.rooms} with {crowd.parties} parties each")
            feed(made.settings, crowd_of(made, crowd))
        for crowd in CROWDS:
            with stand.bridge(made):
                lines.append(_join(stand, made, crowd, max(plan.seconds, 2)))
            plan.say(f"rooms: {crowd.name}: p99 {lines[-1]['p99_ms']:.1f} ms")
        versions = stand.versions()
    return Result(
        work="rooms",
        method=METHOD,
        tables=[_table(lines)],
        verdicts=[Verdict("p99 of a join told to its room", max(line["p99_ms"] for line in lines), 50, False, "ms")],
        lost=sum(line["lost"] for line in lines),
        versions=versions,
    )


def crowd_of(bridge: Bridge, crowd: Crowd) -> Iterator[Message]:
    """Yield what fills the rooms with users who have one endpoint each."""
    users = crowd.rooms * crowd.parties
    yield from registrations(bridge.prefix, users, letter="p")
    for number in range(users):
        user = f"p{number:06d}"
        yield f"{bridge.prefix}presence/rooms/{crowd.room_of(number)}", online(user, f"{user}~0")


def joins(stand: Stand, bridge: Bridge, crowd: Crowd, letter: str = "j") -> dict[str, object]:
    """Return the load generator's options for joins told to all who were there; ``letter`` begins who joins."""
    template = stand.folder / f"join-{letter}.json"
    template.write_text(online(letter + "#" * 10, f"{letter}{crowd.rooms}-" + "#" * 10, mark="#" * 10))
    return {
        "topic": f"{bridge.prefix}presence/rooms/{room(crowd.rooms, '%%%%%%')}",
        "sub": f"{bridge.prefix}users/endpoints/#",
        "key": '"mark"',
        "template": template,
        "users": crowd.rooms,
        "fanout": crowd.parties,
        "qos": 1,
    }


def _join(stand: Stand, bridge: Bridge, crowd: Crowd, seconds: float) -> dict[str, Any]:
    options = {
        **joins(stand, bridge, crowd),
        "window": WINDOW,
        "rate": crowd.joins_per_second,
        "warmup": WARM_UP_SECONDS,
        "duration": seconds,
        "drain": DRAIN_SECONDS,
    }
    return run_loadgen(stand, options, bridge.name)


def _table(lines: list[dict[str, Any]]) -> Table:
    columns = [Column("work"), Column("deliveries/s"), Column("p50 ms", 1), Column("p99 ms", 1), Column("max ms", 1)]
    columns += [Column("bridge us", 1), Column("redis us", 1), Column("broker us", 1), Column("lost")]
    rows: list[list[Cell]] = [
        [
            crowd.name,
            *(line[figure] for figure in ("rate", "p50_ms", "p99_ms", "max_ms")),
            *(line["cpu_us"][process] for process in ("worker", "redis", "broker")),
            line["lost"],
        ]
        for crowd, line in zip(CROWDS, lines, strict=True)
    ]
    return Table("", columns, rows)
