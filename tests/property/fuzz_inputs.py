"""Random inputs through the whole line: nothing makes it fail, stops it, leaves it owing, or shows a payload in public.

Half of the payloads are what a client of some care would send, with a field or two that are not; the rest is torn,
thrown together or hostile.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from structlog.testing import capture_logs

from bridge.domain.rules import Rules
from bridge.domain.schema import decode_record
from bridge.domain.topics import is_text
from bridge.domain.values import Output
from tests.property.found import Found
from tests.unit.world import REJECTED, Message, World, message

CANARY = "c4n4ry"
SLOWEST_SECONDS = 0.5
IDS = ("ann", "ann", "bob", "lamp", "s1", "e1", "ann~1", "é", "x" * 128)
BAD_IDS = ("", "a+b", "#", "a/b", "$x", "\x00", "x" * 129, "\U0001f600" * 60, "*", "~", "%u", "..")
TOPICS = (
    *("presence/users/{}", "presence/participants/{}", "presence/devices/{}", "presence/devices/{}/status"),
    *("presence/users/{}/status", "presence/rooms/{}", "clients/{}/rooms/{}", "sessions/{}", "sessions/{}/permissions"),
    *("sessions/{}/participants/{}/status", "clients/{}/sessions/{}/status", "sessions/{}/permissions/{}"),
    *("users/endpoints/{}/keepalive", "rpc/{method}", "clients/{}/rpc/{method}", "users/endpoints/{}", "nobody/{}"),
)
METHODS = (
    *("online_users", "busy_devices", "status_devices", "update_device_status", "sessions_of", "session_members"),
    *("room_parties", "media_state", "explain", "call_permissions", "mute_participant", "register_endpoint"),
    *(
        "keepalive_endpoint",
        "unregister_endpoint",
        "watch_endpoint",
        "send_event",
        "events",
        "list_endpoints",
        "no_such",
    ),
)
MEDIA = ("AUDIO", "VIDEO", "SCREEN_SHARING", "MOVIE_SHARING", "NOISE")
STATES = ("UNMUTE", "MUTE", "MUTE_PERMANENT", "LOUD")
CATEGORIES = (
    *("party.online", "party.leaves", "request.parties", "party.removed", "party.typing", "media.session.invalid"),
    *("app.event.presence.party.online", "app.event.presence.party.leaves", "nonsense"),
)
# Beginning of a topic -> the types that it carries, and some that it does not.
TYPES: dict[str, tuple[object, ...]] = {
    "presence/users": ("USER_CONNECTED", "USER_DISCONNECTED", 1, 2, 3, "USER_UPDATED", 77),
    "presence/participants": ("PARTICIPANT_CONNECTED", "PARTICIPANT_DISCONNECTED", 1, 2, "USER_CONNECTED"),
    "presence/devices": ("DEVICE_CONNECTED", "DEVICE_DISCONNECTED", 1, 2, "x.DeviceEvent"),
    "sessions": (
        "JoinSessionEvent",
        "LeaveSessionEvent",
        "StopSessionEvent",
        "JoinSessionReplyEvent",
        "a.b/JoinSessionEvent",
    ),
    "": ("mute-participant", "TeaReadyEvent", "user", "anonymous", "phone"),
}
Dice = random.Random
_Maker = Callable[[Dice], Any]


def one_id(dice: Dice) -> str:
    return dice.choice(IDS if dice.random() < 0.95 else BAD_IDS)


def _ids(dice: Dice) -> list[str]:
    return [one_id(dice) for _ in range(dice.choice((0, 1, 2, 5)))]


def _time(dice: Dice) -> object:
    return dice.choice((0, 5, 1_700_000_000, 1_700_000_000_000, 1e300, -1, "2023-11-14T22:13:20.000Z", "noon", "9999"))


def _flag(dice: Dice) -> object:
    return dice.random() < 0.5


def _count(dice: Dice) -> object:
    return dice.choice((0, 1, 2, 3, -1, "2", "x", 10**30, 1.5, 86_400, 600))


def _of(*choices: object) -> _Maker:
    return lambda dice: dice.choice(choices)


def _some(maker: _Maker) -> _Maker:
    return lambda dice: [maker(dice) for _ in range(dice.choice((0, 1, 1, 2)))]


def _object(*names: str) -> _Maker:
    return lambda dice: {name: _value(name, dice) for name in names if dice.random() < 0.8}


FIELDS: dict[str, _Maker] = {
    **dict.fromkeys(("userUuid", "participantUuid", "deviceUuid", "user_uuid", "sessionUuid", "uuid"), one_id),
    **dict.fromkeys(("userId", "participantId", "userEndpointId", "endpointId", "topicId", "_id", "sessionId"), one_id),
    **dict.fromkeys(("session", "room", "participant", "connectionId", "attendee", "cursor", "organizationId"), one_id),
    **dict.fromkeys(("sessionUsers", "sessionParticipants", "sessionDevices", "leavingUsers", "leavingDevices"), _ids),
    **dict.fromkeys(("timestamp", "time", "since"), _time),
    **dict.fromkeys(("offline", "idle", "muteAll", "unmute", "stateUpdated", "handRaised", "isAudioEnabled"), _flag),
    **dict.fromkeys(("audio", "video", "connected", "serverKeepAliveReminderOn", "isVideoEnabled"), _flag),
    **dict.fromkeys(("connections", "sessions", "sendStreams", "recvStreams", "seq", "limit", "qos"), _count),
    "keepAliveSeconds": _count,
    "type": _of(*TYPES[""]),
    "@type": _of("type.googleapis.com/opentera.protobuf.UserEvent", "JoinSessionEvent"),
    "kind": _of("user", "participant", "device", "robot"),
    "joinReply": _of("REPLY_ACCEPTED", "REPLY_DENIED", 2, 77, "MAYBE"),
    "category": _of(*CATEGORIES),
    "state": _of("init", "sending", "x"),
    "roles": _some(_of("CREATOR", "ADMIN", "KING")),
    "role": _of("member", None),
    "attendeeType": _of("userId", "anonymousId", "x"),
    "muteStates": lambda dice: {dice.choice(MEDIA): dice.choice(STATES) for _ in range(dice.randint(0, 3))},
    **dict.fromkeys(("mediaOptions", "unmuteOptions", "requestedMedia"), _some(_of(*MEDIA))),
    "adminId": lambda dice: dice.choice((None, one_id(dice), {"id": one_id(dice), "deviceIdx": 1})),
    "roomId": lambda dice: dice.choice((None, one_id(dice))),
    "watch": _some(_of("*", "device:*", "user:ann", "device:lamp", "robot:x", "user:", CANARY)),
    "masks": _some(_of("$..text", "$.a", "$[", CANARY, "$..*")),
    "status": _of(None, 1, "on", '{"a": 1}', CANARY, {"deep": [1, {"x": CANARY}]}),
    "sender": lambda dice: {"_id": one_id(dice), "type": dice.choice(("user", "user", "anonymous", "phone", CANARY))},
    "receivers": _some(_object("_id", "type")),
    "content": _object(
        "sessionId", "offline", "idle", "role", "mediaSession", "attendee", "attendeeType", "endpointId"
    ),
    "mediaSession": _object("audio", "video", "connected"),
    "mediaSettings": _object("isAudioEnabled", "isVideoEnabled"),
    "header": _object("time"),
    "event": _object("type", "timestamp", "text"),
    "filter": _object("userId", "type", "room", "session"),
    "reason": _of(None, "bye", CANARY),
    "text": _of(CANARY, "hello", 1),
    "displayname": _of("Ann", CANARY),
}
NAMES = tuple(FIELDS)


def _value(name: str, dice: Dice) -> object:
    return FIELDS[name](dice) if dice.random() < 0.97 else _anything(dice, 3)


def _anything(dice: Dice, depth: int) -> object:
    kind = dice.random()
    if depth and kind < 0.2:
        return {dice.choice((*NAMES, "", CANARY)): _anything(dice, depth - 1) for _ in range(dice.randint(0, 3))}
    if depth and kind < 0.4:
        return [_anything(dice, depth - 1) for _ in range(dice.randint(0, 3))]
    return dice.choice((None, True, False, 0, -1, 10**40, 0.1, "", CANARY, "1", "\ud83d", "é" * 50, "x" * 5000))


def payload_of(dice: Dice, topic: str) -> bytes:
    kind = dice.random()
    if kind < 0.08:
        return dice.choice((b"", b"online", b"offline"))
    if kind < 0.12:
        return dice.randbytes(dice.choice((1, 5, 100)))
    if kind < 0.15:
        return dice.choice((b"[" * 70_000, b'{"a":' * 300, b" " * 600_000, b"9" * 400, b'"' + b"\\u0041" * 9000 + b'"'))
    extra = dice.sample(NAMES, dice.choice((0, 0, 1, 3, 9)))
    document: Any = {name: _value(name, dice) for name in extra + _likely(topic, dice)}
    if "type" in document and dice.random() < 0.9:
        document["type"] = dice.choice(next(types for start, types in TYPES.items() if topic.startswith(start)))
    if kind < 0.2:
        document = {"header": {"time": _time(dice)}, "events": [document, _anything(dice, 2), document]}
    if kind < 0.22:
        document = {"message": document}
    if 0.22 < kind < 0.25:
        document = _anything(dice, 4)
    if 0.35 < kind < 0.45 and "rpc" in topic:
        document = [_anything(dice, 1) if dice.random() < 0.3 else one_id(dice) for _ in range(dice.randint(0, 5))]
    text = json.dumps(document).encode()
    for _ in range(dice.choice((0,) * 12 + (1, 3))):
        place = dice.randint(0, len(text))
        text = text[:place] + dice.choice((b"", dice.randbytes(1), b'"', b"{")) + text[place + dice.randint(0, 2) :]
    return text


# Part of a topic -> fields without which hardly anything on it is taken.
_LIKELY: dict[str, tuple[str, ...]] = {
    "rooms/": ("category", "sender", "content"),
    "permissions": ("muteStates", "mediaOptions", "adminId", "muteAll", "stateUpdated"),
    "/status": ("connections", "sendStreams", "recvStreams", "roles", "mediaSettings"),
    "sessions/": ("type", "sessionUsers", "sessionDevices", "leavingUsers"),
    "register_endpoint": ("userId", "keepAliveSeconds", "userEndpointId", "watch"),
    "mute_participant": ("session", "participant", "muteStates", "adminId"),
    "send_event": ("event", "userId", "qos", "masks"),
    "sessions_of": ("kind", "uuid"),
    "explain": ("kind", "uuid"),
    "_endpoint": ("userEndpointId", "watch"),
    "list_endpoints": ("userId",),
    "rpc/room_parties": ("room",),
    "rpc/": ("session",),
    "presence/": ("type",),
}


def _likely(topic: str, dice: Dice) -> list[str]:
    names = next((names for part, names in _LIKELY.items() if part in topic), ())
    return [name for name in names if dice.random() < 0.95]


def message_of(dice: Dice, prefix: str) -> Message:
    """A message that somebody might send, or somebody else might craft."""
    topic = dice.choice(TOPICS).replace("{method}", dice.choice(METHODS))
    while "{}" in topic:
        topic = topic.replace("{}", one_id(dice), 1)
    if prefix:
        topic = dice.choice(("acme/", "acme/", "blue/", "", "a+b/")) + topic
    asks = "rpc/" in topic and dice.random() < 0.9
    mine = "replies/me" if "clients/" not in topic else "clients/ann/replies/me"
    replies = (*(mine,) * 20, "replies/", "replies/+", "users/endpoints/ann~1", "replies/" + "x/" * 300)
    return Message(
        topic,
        payload_of(dice, topic),
        qos=dice.randint(0, 1),
        retain=dice.random() < 0.1,
        connection=one_id(dice) if dice.random() < 0.2 else "",
        endpoint=one_id(dice) if dice.random() < 0.2 else "",
        response_topic=dice.choice(replies) if asks else None,
        correlation=dice.randbytes(4) if asks else None,
    )


def _beginning(prefix: str) -> list[Message]:
    """What makes a world in which something can happen: endpoints that hear, a session, a room."""
    said: list[tuple[str, object]] = [
        ("rpc/register_endpoint", {"userId": "ann", "userEndpointId": "ann~1", "keepAliveSeconds": 5, "watch": ["*"]}),
        ("rpc/register_endpoint", {"userId": "bob", "userEndpointId": "bob~1", "keepAliveSeconds": 86_400}),
        ("presence/users/ann", {"type": "USER_CONNECTED"}),
        ("sessions/s1", {"type": "JoinSessionEvent", "sessionUsers": ["ann", "bob"], "sessionDevices": ["lamp"]}),
        (
            "presence/rooms/s1",
            {"category": "party.online", "sender": {"_id": "bob", "type": "user"}, "content": {"sessionId": "bob~1"}},
        ),
    ]
    return [message(prefix + topic, fields) for topic, fields in said]


class Inputs:
    """Inputs of all kinds on a world; see the module's docstring.

    Args:
        seed: of the dice.
        timed: whether a case may be too slow.

    Attributes:
        seen: how many inputs ended how.
        slowest_seconds: of CPU time.
    """

    PROMISE = "no crash, no hang, no input that is owed, no payload in public"

    def __init__(self, seed: int, *, timed: bool) -> None:
        self._limit_seconds = SLOWEST_SECONDS if timed else float("inf")
        self._seed = seed
        self.seen: Counter[str] = Counter()
        self.slowest_seconds = 0.0
        self.slowest_number = 0

    def case(self, number: int) -> None:
        """Try one.

        Raises:
            Found: it may not do that.
        """
        dice = random.Random(f"{self._seed}/{number}")
        prefix = dice.choice(("", "", "{organization}/"))
        rules = Rules(
            organization_in_topic=bool(prefix),
            from_endpoints=dice.random() < 0.3,
            lease_ms=dice.choice((0, 5000)),
            party_lease_ms=dice.choice((0, 5000)),
            flap_limit=dice.choice((0, 2)),
            grace_ms=dice.choice((0, 1000)),
            audit_ms=dice.choice((0, 60_000)),
            bound_ids=dice.random() < 0.2,
        )
        messages = [message_of(dice, prefix) for _ in range(dice.choice((1, 3, 12)))]
        start = time.thread_time()
        with capture_logs() as lines:
            world = World(rules, prefix=prefix, registry_topics=dice.random() < 0.5)
            world.feed(*_beginning(prefix and "acme/"))
            world.feed(*messages)
            for _ in range(dice.choice((0, 2))):
                world.pass_seconds(dice.choice((1, 7)))
        took = time.thread_time() - start
        self._judge(world, messages, lines)
        self.seen["inputs"] += len(messages)
        self.seen.update({name: count for name, count in world.counts.items() if name.startswith("rejected:")})
        self.seen["events told"] += sum(bool(output.event_id) for output in world.broker.outputs)
        if took > self.slowest_seconds:
            self.slowest_seconds, self.slowest_number = took, number
        if took > self._limit_seconds:
            raise Found(f"takes {took * 1000:.0f} ms: {messages!r:.2000}")

    def _judge(self, world: World, messages: list[Message], lines: list[Any]) -> None:
        shown = f"{messages!r:.4000}"
        for line in lines:
            if "bug" in line["event"]:
                raise Found(f"the bridge failed: {line} on {shown}")
            if CANARY in str(line):
                raise Found(f"the log repeats a payload: {line} on {shown}")
        if not world.all_acknowledged:
            raise Found(f"an input was not acknowledged: {shown}")
        for output in world.broker.outputs:
            self._judge_output(output, shown)
        for asked in messages:
            if asked.correlation is not None:
                answers = [one for one in world.broker.outputs if one.correlation == asked.correlation]
                if len(answers) > 1:
                    raise Found(f"answered {len(answers)} times: {asked!r:.1000}")
                self.seen["answered"] += len(answers)
        for organization, values in world.registry.organizations.items():
            for key, stored in values.items():
                if isinstance(stored, bytes) and not key.startswith("sent:"):
                    decode_record(key.partition(":")[0], stored)
            if len(organization) > 64:
                raise Found(f"organization {organization!r}: {shown}")

    def _judge_output(self, output: Output, shown: str) -> None:
        if not is_text(output.topic) or "+" in output.topic or "#" in output.topic:
            raise Found(f"published to {output.topic!r} on {shown}")
        if not output.payload:
            return
        body = json.loads(output.payload)
        if output.topic.endswith(REJECTED):
            if CANARY in body["reason"]:
                raise Found(f"a report repeats a payload: {body} on {shown}")
        elif output.event_id and body["type"] != "TeaReadyEvent":
            missing = {"id", "type", "timestamp", "organizationId", "about", "version"} - body.keys()
            if missing or body["id"] != output.event_id:
                raise Found(f"an event without {missing}: {body} on {shown}")
