"""A paced load on every noun, through one publisher and in one order, and what the endpoints hear of it.

What has to come of it the `Witness` knows: what its model tells must reach the endpoints, and what that knows at the
end must be what the bridge knows.
"""

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import msgspec

from tests.faults.caller import DEVICES, Caller
from tests.faults.ledger import Ledger
from tests.faults.pictures import SILENT, differences, picture
from tests.faults.publisher import Publisher
from tests.faults.stand import LEASE_SECONDS
from tests.faults.subscriber import Heard, Subscriber
from tests.faults.witness import Call, Witness, decode, number_of
from tests.integration.stack import Client

KINDS = {"u": "user", "d": "device", "w": "device", "p": "participant", "s": "user"}
ACTORS = 10
SESSIONS, ROOMS = ("s0", "s1", "s2", "s3"), ("r0", "r1", "r2")
KEEP_ALIVE_SECONDS, KEEP_ALIVE_EVERY_SECONDS = LEASE_SECONDS, 2.0  # of endpoints, and of connections
LATE_SECONDS = 3.0  # a judge that was held up for longer kept nobody alive: what expires then is no fault of the bridge
SILENT_SECONDS, SILENT_EVERY_SECONDS = 4, 5.0
INPUTS = ["presence/#", "sessions/#", "rpc/register_endpoint"]
ANSWERS = "replies/traffic"
REMEMBERED = 50_000  # inputs and outputs, for whoever looks for a lost one
SENT = "ParcelSentEvent"

_encode = msgspec.json.Encoder().encode


class Traffic:
    """Publishes until `close`; `pause` and `resume` stop and go on.

    Args:
        port: of the broker itself, around every proxy.
        per_second: inputs.
        seed: of the choices.
        http_ports: where bridges listen now.
        second_prefix: of a second bridge, where there is one; half of the connections come and go through it.

    Attributes:
        ledger: what must come, and what came.
        must_say_again: what the bridge knows may be less than what was said, and no fault of it.
    """

    def __init__(
        self,
        port: int,
        per_second: float,
        seed: int,
        *,
        http_ports: Callable[[], Sequence[int]],
        second_prefix: str = "",
    ) -> None:
        self.ledger = Ledger()
        self.must_say_again = False
        self._port = port
        self._per_second = per_second
        self._dice = random.Random(seed)
        self._next_number = count(1).__next__
        self._last_put = 0
        self._prefixes = ["", second_prefix] if second_prefix else [""]
        self._online: dict[tuple[str, str], bool] = {}
        self._joined: dict[str, set[str]] = {}
        self._parties: dict[str, set[str]] = {}
        self._silent = 0
        self._is_ending = False
        self._kept_at = self._silent_at = time.monotonic()
        self._late_until = 0.0
        self._go, self._stop, self._idle = threading.Event(), threading.Event(), threading.Event()
        self.subjects = [f"{kind}{number}" for kind in ("u", "d", "p") for number in range(ACTORS)]
        self.users = self.subjects[:ACTORS]
        self.endpoints = {f"{subject}.e": subject for subject in self.subjects}
        self._said: deque[tuple[int, str, bytes]] = deque(maxlen=REMEMBERED)
        self._second_ear: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED)
        outputs = ["users/endpoints/+", f"{ANSWERS}/+"]
        self._told = Subscriber(port, outputs, self._on_told)
        self._also_told = Subscriber(port, outputs, lambda heard: self._second_ear.append(heard[:2]))
        self._witness = Witness(port, INPUTS, SILENT.encode(), self.ledger, second_prefix=second_prefix)
        self.publisher = Publisher(port)
        self._caller = Caller(http_ports, self._next_number, self.ledger)
        self._register_all()
        self._say_devices()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._thread.start()

    # What is published.

    def resume(self) -> None:
        self._idle.clear()
        self._go.set()
        self._caller.resume()

    def pause(self) -> None:
        """Publish nothing but keepalives; returns when the last input is with the publisher."""
        self._caller.pause()
        self._go.clear()
        assert self._idle.wait(30)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._caller.close()
        self.publisher.close()
        self._told.close()
        self._also_told.close()
        self._witness.close()

    def _run(self) -> None:
        acts: dict[Callable[[str], None], int] = {
            self._status: 45,
            self._presence: 25,
            self._session: 10,
            self._room: 10,
            self._media: 5,
            self._ask: 5,
        }
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            now = time.monotonic()
            self._keep_alive(now)
            if not self._go.is_set():
                self._idle.set()
                began, sent = now, 0
                time.sleep(0.01)
                continue
            due = int((now - began) * self._per_second) + 1
            for _ in range(min(due - sent, 50)):
                (act,) = self._dice.choices(list(acts), list(acts.values()))
                act(self._dice.choice(self.subjects))
                sent += 1
            time.sleep(0.005)

    def _keep_alive(self, now: float) -> None:
        if now - self._kept_at >= LATE_SECONDS:
            self._late_until = now + KEEP_ALIVE_SECONDS
        if now - self._kept_at >= KEEP_ALIVE_EVERY_SECONDS:
            self._kept_at = now
            for endpoint in self.endpoints:
                self.publisher.put(f"users/endpoints/{endpoint}/keepalive", b"")
            for (subject, prefix), online in list(self._online.items()):
                if online:
                    topic, document = self._presence_of(subject, prefix, online=True)
                    self.publisher.put(topic, _encode(document))
        if now - self._silent_at >= SILENT_EVERY_SECONDS and not self._is_ending:
            self._silent_at = now
            self._silent += 1
            self._register(f"{SILENT}{self._silent}.e", SILENT, SILENT_SECONDS)
            self.publisher.put(f"presence/devices/{SILENT}{self._silent}", b"online")

    def _register(self, endpoint: str, subject: str, seconds: int) -> None:
        params = {"userId": subject, "kind": _kind(subject), "userEndpointId": endpoint, "keepAliveSeconds": seconds}
        self.publisher.put("rpc/register_endpoint", _encode(params))

    def _register_all(self) -> None:
        for endpoint, subject in self.endpoints.items():
            self._register(endpoint, subject, KEEP_ALIVE_SECONDS)

    def _say_devices(self) -> None:
        """The devices whose statuses come by HTTP are online for ever."""
        for device in DEVICES:
            self._register(f"{device}.e", device, 86_400)
            self._online[device, ""] = True
            self._say_presence(device, "", online=True)

    def _put(self, topic: str, document: dict[str, Any]) -> None:
        self._last_put = self._next_number()
        self.ledger.counts["inputs"] += 1
        payload = _encode({**document, "seq": self._last_put})
        self._said.append((self._last_put, topic, payload))
        self.publisher.put(topic, payload)

    def _status(self, subject: str) -> None:
        self._put(f"presence/{_kind(subject)}s/{subject}/status", {"text": "x" * 100})

    def _presence(self, subject: str) -> None:
        prefix = self._dice.choice(self._prefixes)
        online = self._online[subject, prefix] = not self._online.get((subject, prefix), False)
        self._say_presence(subject, prefix, online=online)

    def _say_presence(self, subject: str, prefix: str, *, online: bool) -> None:
        self._put(*self._presence_of(subject, prefix, online=online))

    def _presence_of(self, subject: str, prefix: str, *, online: bool) -> tuple[str, dict[str, Any]]:
        kind = _kind(subject)
        verb = "CONNECTED" if online else "DISCONNECTED"
        connection = f"c{self._prefixes.index(prefix)}"
        return f"{prefix}presence/{kind}s/{subject}", {"type": f"{kind.upper()}_{verb}", "connectionId": connection}

    def _session(self, subject: str) -> None:
        session = self._dice.choice(SESSIONS)
        members = self._joined.setdefault(session, set())
        what = self._dice.choice(("Join", "Join", "Leave", "Stop", "mute", "mute"))
        if what == "Join":
            members.add(subject)
            self._put(f"sessions/{session}", _session_event(what, f"session{_kind(subject).capitalize()}s", subject))
        elif what == "Leave":
            members.discard(subject)
            self._put(f"sessions/{session}", _session_event(what, f"leaving{_kind(subject).capitalize()}s", subject))
        elif what == "Stop":
            self._stop_session(session)
        else:
            state = self._dice.choice(("UNMUTE", "MUTE", "MUTE_PERMANENT"))
            mute = {"muteStates": {"AUDIO": state}, "muteAll": True, "stateUpdated": True, "adminId": None}
            self._put(f"sessions/{session}/permissions", mute)

    def _stop_session(self, session: str) -> None:
        self._joined[session].clear()
        self._put(f"sessions/{session}", {"type": "StopSessionEvent"})

    def _media(self, subject: str) -> None:
        """Of a member where there is one; who is in no session is refused."""
        session = self._dice.choice(SESSIONS)
        member = self._dice.choice(sorted(self._joined.get(session, ())) or [subject])
        counters = {name: self._dice.randrange(3) for name in ("connections", "sendStreams", "recvStreams")}
        self._put(f"sessions/{session}/participants/{member}/status", {"event": "changed", **counters})

    def _room(self, subject: str) -> None:
        user = self.users[int(subject[1:])]
        room = self._dice.choice(ROOMS)
        what = self._dice.choice(("online", "online", "leaves", "typing"))
        self._say_room(room, user, what, self._dice.choice((True, False)))

    def _say_room(self, room: str, user: str, what: str, idle: bool = False) -> None:
        parties = self._parties.setdefault(room, set())
        if what == "online":
            parties.add(user)
        elif what == "leaves":
            parties.discard(user)
        content = {"sessionId": f"{room}-{user}", "idle": idle, "offline": False, "endpointId": f"{user}.e"}
        sender = {"_id": user, "type": "user", "displayname": user.upper()}
        self._put(
            f"presence/rooms/{room}",
            {"category": f"app.event.presence.party.{what}", "topicId": room, "sender": sender, "content": content},
        )

    def _ask(self, subject: str) -> None:
        """A question, a command, or an event to be sent: the answer must come, and the event."""
        number, user = self._next_number(), self._dice.choice(self.users)
        event = {"type": SENT, "timestamp": "2026-01-01T00:00:00Z", "number": number}
        method, params = self._dice.choice(
            (
                ("list_endpoints", {"userId": subject}),
                ("keepalive_endpoint", {"userEndpointId": f"{subject}.e"}),
                ("send_event", {"event": event, "userId": user, "qos": 1}),
            )
        )
        self.ledger.counts["inputs"] += 1
        self.ledger.expect(ANSWERS, number)
        if method == "send_event":
            self.ledger.expect(f"{user}.e, sent", number)
        self._said.append((number, method, _encode(params)))
        self.publisher.put(f"rpc/{method}", _encode(params), response_topic=f"{ANSWERS}/{number}")

    def say_all_again(self) -> None:
        """Publish how everything stands, where what was said of it may be forgotten."""
        self.must_say_again = False
        self._caller.forget()
        self._register_all()
        self._say_devices()
        for session in self._joined:
            self._stop_session(session)
        for room, present in self._parties.items():
            for user in self.users:
                for what in ("leaves", "online") if user in present else ("leaves",):
                    self._say_room(room, user, what)
        for subject in self.subjects:
            for prefix in self._prefixes:
                for online in (False, self._online.get((subject, prefix), False)):
                    self._say_presence(subject, prefix, online=online)
            self._status(subject)

    # What is heard.

    def _on_told(self, delivery: Heard) -> None:
        if delivery.topic.startswith(ANSWERS):
            self.ledger.came(ANSWERS, int(delivery.topic.rpartition("/")[2]))
            return
        event = decode(delivery.payload)
        endpoint = delivery.topic.rpartition("/")[2]
        if event["type"] == SENT:
            self.ledger.came(f"{endpoint}, sent", event["number"])
            return
        if endpoint.partition(".")[0] in DEVICES:
            self._caller.told(event)
            return
        number = number_of(event)
        if number is not None:
            self.ledger.came(endpoint, number)
        self.ledger.heard(endpoint, event, number, delivery)
        if event["type"] == "UserEndpointExpiredEvent" and event["userEndpointId"] in self.endpoints:
            self._expired(f"{event['userEndpointId']} was kept alive: {event}")
        if event.get("cause") == "expired" and event["type"].endswith("PresenceChangedEvent"):
            self._expired(f"the connection of {event.get('uuid', event['about'])} was kept alive: {event}")

    def _expired(self, what: str) -> None:
        if time.monotonic() < self._late_until:
            self.ledger.counts["expired, the judge was late"] += 1
            self.must_say_again = True
        else:
            self.ledger.fault("false expiries", what)

    def was_heard(self, endpoint: str, number: int) -> bool:
        """Whether the second ear heard what ``endpoint`` was to hear: then the broker lost it for the first one."""
        name = endpoint.partition(",")[0]
        words = (f":{number},".encode(), f":{number}}}".encode())
        return any(
            topic.endswith((f"/{name}", f"{name}/{number}"))
            and (name == ANSWERS or any(word in payload for word in words))
            for topic, payload in list(self._second_ear)
        )

    def describe(self, number: int) -> str:
        """An input, for a failure's text."""
        said = [f"{topic} {payload!r}" for one, topic, payload in list(self._said) if one == number]
        answers = [repr(payload) for topic, payload in list(self._second_ear) if topic == f"{ANSWERS}/{number}"]
        return f"input {number}: {', '.join(said)}; answers: {', '.join(answers)}"

    # How things stand.

    @property
    def is_published(self) -> bool:
        """Everything was acknowledged by the broker, and the witness has heard the last of it."""
        for ear in (self._told, self._also_told, self._witness):
            ear.check()
        if not self._caller.is_idle or self.publisher.acknowledged < self.publisher.given:
            return False
        return self._witness.newest == self._last_put

    @property
    def is_settled(self) -> bool:
        """Everything was published, and all of it came."""
        return self.is_published and not self.ledger.awaited

    def is_answered(self, seconds: float) -> bool:
        """Ask until a bridge answers, at most so long: what comes before that a broker without its session loses."""
        client = Client(self._port)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                with contextlib.suppress(AssertionError):
                    client.rpc("online_users", seconds=0.3)
                    return True
            return False
        finally:
            client.close()

    def differences(self) -> list[tuple[str, str]]:
        """(kind of fault, what is known otherwise than the model knows it), while nothing is published.

        Raises:
            AssertionError: the bridge does not answer.
        """
        client = Client(self._port)
        try:
            found = self._picture(client.rpc)
            expected = self._witness.picture(self._picture)
            statuses = client.rpc("status_devices")
        finally:
            client.close()
        return [*differences(found, expected), *(("lost", what) for what in self._caller.differences(statuses))]

    def _picture(self, call: Call) -> dict[str, Any]:
        return picture(call, self.users, SESSIONS, ROOMS)

    def never_ending(self, seconds: float) -> list[str]:
        """Register nobody silent any more, and wait until all those have expired, at most so long; returns who has not.

        Raises:
            AssertionError: the bridge does not answer.
        """
        self._is_ending = True
        end = time.monotonic() + seconds
        silent: list[str] = []
        client = Client(self._port)
        try:
            while time.monotonic() < end:
                silent = [one["id"] for one in client.rpc("list_endpoints", {"userId": SILENT})]
                silent += [device for device in client.rpc("online_devices") if device.startswith(SILENT)]
                if not silent:
                    break
                time.sleep(0.5)
            return silent
        finally:
            client.close()


def _session_event(what: str, field: str, subject: str) -> dict[str, Any]:
    return {"type": f"{what}SessionEvent", field: [subject]}


def _kind(subject: str) -> str:
    return KINDS[subject[0]]
