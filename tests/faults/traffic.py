"""A paced load on every noun, and the ledger of what has to come of it.

All inputs go through one publisher, in one order. A witness with a durable session of its own hears what the broker
made of them, and the in-memory model of the bridge is fed with that: what the model tells must reach the endpoints,
and what it knows at the end must be what the bridge knows. What the witness never hears the broker has lost, not the
bridge.
"""

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults.publisher import Publisher
from tests.faults.subscriber import Heard, Subscriber
from tests.integration.stack import Client
from tests.unit.world import World, message

ACTORS = 10
KEEP_ALIVE_SECONDS, KEEP_ALIVE_EVERY_SECONDS = 15, 3.0
SILENT_SECONDS, SILENT_EVERY_SECONDS = 4, 5.0
SILENT_GONE_SECONDS = 60.0  # all outages of that time, their jitter and the interval itself are less
MOST_TOLD, LONGEST_TOLD = 30, 600
INPUTS = ["presence/#", "sessions/#", "rpc/register_endpoint"]


class Ledger:
    """What must come, what came, and what came that must not. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.awaited: dict[tuple[str, int], float] = {}
        self.faults: list[str] = []
        self._seen: dict[str, set[int]] = {}
        self._events: dict[tuple[str, str], dict[str, int]] = {}
        self._highest: dict[tuple[str, str], int] = {}

    def expect(self, endpoint: str, number: int) -> None:
        """The model told ``endpoint`` of input ``number``."""
        with self.lock:
            if number not in self._seen.setdefault(endpoint, set()):
                self.awaited.setdefault((endpoint, number), time.monotonic())

    def heard(self, endpoint: str, event: dict[str, Any], delivery: Heard) -> None:
        """An endpoint was told."""
        with self.lock:
            self.counts["outputs"] += 1
            about, version, event_id = event["about"], event["version"], event["id"]
            known = self._events.setdefault((endpoint, about), {})
            if event_id in known:
                is_marked = delivery.redelivered or delivery.duplicate
                self.counts["copies, marked" if is_marked else "copies, unmarked"] += 1
            else:
                known[event_id] = version
                if len(known) > 200:
                    del known[next(iter(known))]
                place = endpoint, about
                if version < self._highest.get(place, 0) and not delivery.redelivered:
                    self._fault("version regressions", f"{endpoint}: {about} went back to {version}: {event}")
                self._highest[place] = max(version, self._highest.get(place, 0))
            number = _number_of(event)
            if number is not None:
                self._seen.setdefault(endpoint, set()).add(number)
                self.awaited.pop((endpoint, number), None)

    def fault(self, kind: str, what: str) -> None:
        """Note what must not be."""
        with self.lock:
            self._fault(kind, what)

    def _fault(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        if len(self.faults) < MOST_TOLD:
            self.faults.append(f"{kind}: {what[:LONGEST_TOLD]}")

    def give_up(self) -> list[tuple[str, int]]:
        """Return what has not come, and wait for it no longer."""
        with self.lock:
            missing = list(self.awaited)
            self.awaited.clear()
            return missing


def _number_of(event: dict[str, Any]) -> int | None:
    """The input's number, which statuses and session messages carry; presence has none."""
    if "seq" in event:
        return int(event["seq"])
    status = event.get("status")
    if event["type"].endswith("StatusChangedEvent") and isinstance(status, dict):
        return int(status["seq"])
    return None


class Traffic:
    """Publishes until `close`; `pause` and `resume` stop and go on.

    Args:
        port: of the broker itself, around every proxy.
        per_second: inputs.
        seed: of the choices.
    """

    def __init__(self, port: int, per_second: float, seed: int) -> None:
        self.ledger = Ledger()
        self.world = World()
        self._world_lock = threading.Lock()
        self._port = port
        self._per_second = per_second
        self._dice = random.Random(seed)
        self._number = self._witnessed = 0
        self._online: dict[str, bool] = {}
        self._joined: dict[str, set[str]] = {}
        self._silent: dict[str, float] = {}
        self._silent_count = 0
        self._kept_at = self._silent_at = 0.0
        self._go, self._stop, self._idle = threading.Event(), threading.Event(), threading.Event()
        self.subjects = [f"{kind}{number}" for kind in ("u", "d", "p") for number in range(ACTORS)]
        self.endpoints = {f"{subject}.e": subject for subject in self.subjects}
        self._told = Subscriber(port, ["users/endpoints/+"], self._on_told)
        self._witness = Subscriber(port, INPUTS, self._on_input)
        self.publisher = Publisher(port)
        for endpoint, subject in self.endpoints.items():
            self._register(endpoint, subject, KEEP_ALIVE_SECONDS)
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._thread.start()

    # What is published.

    def resume(self) -> None:
        self._idle.clear()
        self._go.set()

    def pause(self) -> None:
        """Publish nothing but keepalives; returns when the last input is with the publisher."""
        self._go.clear()
        assert self._idle.wait(10)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.publisher.close()
        self._told.close()
        self._witness.close()

    def _run(self) -> None:
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
                self._publish_one()
                sent += 1
            time.sleep(0.005)

    def _keep_alive(self, now: float) -> None:
        if now - self._kept_at >= KEEP_ALIVE_EVERY_SECONDS:
            self._kept_at = now
            for endpoint in self.endpoints:
                self.publisher.put(f"users/endpoints/{endpoint}/keepalive", "")
        if now - self._silent_at >= SILENT_EVERY_SECONDS:
            self._silent_at = now
            self._silent_count += 1
            endpoint = f"silent{self._silent_count}.e"
            self._silent[endpoint] = now
            self._register(endpoint, "silent", SILENT_SECONDS)

    def _register(self, endpoint: str, subject: str, seconds: int) -> None:
        params = {"userId": subject, "kind": _kind(subject), "userEndpointId": endpoint, "keepAliveSeconds": seconds}
        self.publisher.put("rpc/register_endpoint", json.dumps(params))

    def _publish_one(self) -> None:
        self._number += 1
        act = self._dice.choices((self._status, self._presence, self._session), (6, 3, 1))[0]
        act(self._dice.choice(self.subjects))

    def _put(self, topic: str, document: dict[str, Any]) -> None:
        self.ledger.counts["inputs"] += 1
        self.publisher.put(topic, json.dumps({**document, "seq": self._number}))

    def _status(self, subject: str) -> None:
        self._put(f"presence/{_kind(subject)}s/{subject}/status", {"text": "x" * 100})

    def _presence(self, subject: str) -> None:
        online = self._online[subject] = not self._online.get(subject, False)
        self._say_presence(subject, online)

    def _say_presence(self, subject: str, online: bool) -> None:
        kind = _kind(subject)
        verb = "CONNECTED" if online else "DISCONNECTED"
        self._put(f"presence/{kind}s/{subject}", {"type": f"{kind.upper()}_{verb}", "connectionId": "c"})

    def _session(self, subject: str) -> None:
        session = f"s{self._dice.randrange(4)}"
        members = self._joined.setdefault(session, set())
        what = self._dice.choice(("Join", "Join", "Leave", "Stop"))
        fields: dict[str, Any] = {"type": f"{what}SessionEvent"}
        if what == "Join":
            members.add(subject)
            fields[f"session{_kind(subject).capitalize()}s"] = [subject]
        elif what == "Leave":
            members.discard(subject)
            fields[f"leaving{_kind(subject).capitalize()}s"] = [subject]
        else:
            members.clear()
        self._put(f"sessions/{session}", fields)

    def say_all_again(self) -> None:
        """Publish how everything stands, where the broker may have lost what was said of it."""
        for session, members in self._joined.items():
            self._number += 1
            members.clear()
            self._put(f"sessions/{session}", {"type": "StopSessionEvent"})
        for subject in self.subjects:
            self._register(f"{subject}.e", subject, KEEP_ALIVE_SECONDS)
            for online in (False, self._online.get(subject, False)):
                self._number += 1
                self._say_presence(subject, online)
            self._number += 1
            self._status(subject)

    # What is heard.

    def _on_input(self, delivery: Heard) -> None:
        if "silent" in delivery.topic or b'"silent' in delivery.payload:
            return
        with self._world_lock:
            world = self.world
            world.registry.now_ms += 1
            world.registry.tick_ms = world.registry.now_ms
            for output in world.feed(message(delivery.topic, delivery.payload)):
                if output.event_id:
                    event = json.loads(output.payload)
                    number = _number_of(event)
                    if number is not None:
                        self.ledger.expect(output.topic.rpartition("/")[2], number)
            found = re.search(rb'"seq": (\d+)', delivery.payload)
            self._witnessed = int(found[1]) if found else self._witnessed
            world.receipts.clear()
            world.broker.outputs.clear()
            world.broker.batches.clear()
            world.broker.acknowledged.clear()

    def _on_told(self, delivery: Heard) -> None:
        event = json.loads(delivery.payload)
        endpoint = delivery.topic.rpartition("/")[2]
        self.ledger.heard(endpoint, event, delivery)
        if event["type"] == "UserEndpointExpiredEvent" and event["userEndpointId"] in self.endpoints:
            self.ledger.fault("false expiries", f"{event['userEndpointId']} was kept alive: {event}")

    # How things stand.

    @property
    def is_settled(self) -> bool:
        """Everything was acknowledged by the broker, the witness has heard the last of it, and all of it came."""
        for one in (self._told, self._witness):
            assert one.failed is None, one.failed
        is_published = self.publisher.acknowledged >= self.publisher.given and self._witnessed == self._number
        return is_published and not self.ledger.awaited

    def oldest_awaited(self) -> float:
        """When the oldest of what has not come was expected, monotonic seconds; now where all came."""
        with self.ledger.lock:
            return min(self.ledger.awaited.values(), default=time.monotonic())

    def compare(self, kind_of_fault: str) -> None:
        """Compare what the bridge knows with what the model knows, while nothing is published."""
        client = Client(self._port)
        try:
            found = _pictures(lambda method, params: client.rpc(method, params))
            with self._world_lock:
                expected = _pictures(self.world.call)
            for what, value in expected.items():
                if found[what] != value:
                    ghosts = what.startswith(("online", "busy"))
                    self.ledger.fault(
                        "ghosts" if ghosts else "lost", f"after {kind_of_fault}: {what} is {found[what]}, not {value}"
                    )
            for subject in self.subjects:
                listed = {one["id"] for one in client.rpc("list_endpoints", {"userId": subject})}
                if _kind(subject) == "user" and listed != {f"{subject}.e"}:
                    self.ledger.fault("false expiries", f"after {kind_of_fault}: {subject} has {listed}")
            now = time.monotonic()
            for one in client.rpc("list_endpoints", {"userId": "silent"}):
                if now - self._silent[one["id"]] > SILENT_GONE_SECONDS:
                    self.ledger.fault("ghosts", f"after {kind_of_fault}: {one['id']} is still there: {one}")
        finally:
            client.close()


def _kind(subject: str) -> str:
    return {"u": "user", "d": "device", "p": "participant", "s": "user"}[subject[0]]


def _pictures(call: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Everything that can be asked for, without what differs by time."""
    pictures: dict[str, Any] = {}
    for kind in ("user", "device", "participant"):
        for what in ("online", "busy"):
            pictures[f"{what} {kind}s"] = call(f"{what}_{kind}s", {})
    statuses = call("status_devices", {})
    pictures["status of devices"] = {
        device: (view["online"], view["busy"], view["status"]) for device, view in statuses.items()
    }
    for number in range(4):
        members = call("session_members", {"session": f"s{number}"})
        pictures[f"members of s{number}"] = {kind: sorted(ids) for kind, ids in members.items()}
    return pictures
