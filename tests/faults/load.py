"""A paced load whose every input can be told apart in what comes out, and the judgement over it.

Devices report a status that carries a sequence number; users go online and offline in turn. Each has one endpoint. So
an input that was lost, decided twice or out of order shows itself: each sequence number has exactly one version, and a
user's events alternate by version and are as many as its inputs.
"""

import json
import threading
import time
from itertools import pairwise
from typing import Any

from redis import Redis

from tests.faults.publisher import Publisher
from tests.integration.stack import Message, Stack


class Load:
    """Some devices and as many users, and what was published for them.

    Args:
        stack: its ``world`` must hear ``users/endpoints/+``.
        name: makes the ids new.
        pairs: how many devices, and how many users.
        once: whether every input reaches the broker once. A publisher that loses its connection sends again what was
            not acknowledged; then only loss can be judged, and there are no users, whose toggles would change their
            meaning.
    """

    def __init__(self, stack: Stack, name: str, *, pairs: int = 5, once: bool = True) -> None:
        self.stack = stack
        self.world = stack.world
        self.devices = [f"d{number}-{name}" for number in range(pairs)]
        self.users = [f"u{number}-{name}" for number in range(pairs)] if once else []
        self.statuses: dict[str, list[int]] = {device: [] for device in self.devices}
        self.toggles: dict[str, int] = dict.fromkeys(self.users, 0)
        self.once = once
        self.heard: list[Message] = []
        self._publisher = Publisher(stack.broker.port)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._next = 0
        self._read = self.world.mark()
        self._sequences: set[tuple[str, int]] = set()
        self._versions: dict[str, set[int]] = {}
        for kind, ids in (("device", self.devices), ("user", self.users)):
            for uuid in ids:
                self.world.rpc(
                    "register_endpoint",
                    {"userId": uuid, "kind": kind, "userEndpointId": f"{uuid}.e", "keepAliveSeconds": 600},
                )
        for device in self.devices:
            self.world.publish(f"presence/devices/{device}", "online")
        self.world.rpc("online_devices")

    # Publish.

    def _publish_one(self) -> None:
        number = self._next
        self._next += 1
        everyone = self.devices + self.users
        uuid = everyone[number % len(everyone)]
        if uuid in self.statuses:
            self.statuses[uuid].append(number)
            payload = json.dumps({"seq": number})
            topic = f"presence/devices/{uuid}/status"
        else:
            payload = "offline" if self.toggles[uuid] % 2 else "online"
            self.toggles[uuid] += 1
            topic = f"presence/users/{uuid}"
        self._publisher.put(topic, payload.encode())

    def start(self, count: int, per_second: float) -> None:
        """Publish ``count`` inputs in a thread, at a pace that catches up where it fell behind."""

        def run() -> None:
            began, first = time.monotonic(), self._next
            while not self._stop.is_set() and self._next - first < count:
                due = min(count, int((time.monotonic() - began) * per_second) + 1)
                while self._next - first < due:
                    self._publish_one()
                time.sleep(0.002)

        self._thread = threading.Thread(target=run, name="load")
        self._thread.start()

    @property
    def sent(self) -> int:
        return self._next

    def wait_sent(self, count: int, seconds: float = 60) -> None:
        """Wait until ``count`` inputs were handed to the publisher."""
        end = time.monotonic() + seconds
        while self._next < count:
            assert time.monotonic() < end, f"only {self._next} of {count} published"
            time.sleep(0.002)

    def finish(self, seconds: float = 60) -> None:
        """Wait until everything was published and the broker has answered each."""
        assert self._thread is not None
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        self._publisher.wait(seconds)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        self._publisher.close()

    # Judge.

    def _take(self) -> None:
        messages = self.world.messages
        while self._read < len(messages):
            message = messages[self._read]
            self._read += 1
            if "/endpoints/" not in message.topic:
                continue
            event = message.json
            uuid = event.get("uuid")
            if uuid in self.statuses and event["type"] == "DeviceStatusChangedEvent":
                self._sequences.add((uuid, event["status"]["seq"]))
                self.heard.append(message)
            elif uuid in self.toggles and event["type"] == "UserPresenceChangedEvent":
                self._versions.setdefault(uuid, set()).add(event["version"])
                self.heard.append(message)

    def _is_complete(self) -> bool:
        self._take()
        return len(self._sequences) >= sum(map(len, self.statuses.values())) and all(
            len(self._versions.get(user, ())) >= count for user, count in self.toggles.items()
        )

    def missing(self) -> str:
        """What has not come, for a failure's text."""
        self._take()
        lost = [
            f"{device}: {sorted(set(sequences) - {seq for uuid, seq in self._sequences if uuid == device})[:20]}"
            for device, sequences in self.statuses.items()
        ]
        short = [f"{user}: {len(self._versions.get(user, ()))} of {count}" for user, count in self.toggles.items()]
        return f"lost statuses {lost}, toggles {short}"

    def judge(self, seconds: float = 30) -> dict[str, Any]:
        """Wait for the outputs and check all that is promised; returns figures for whoever watches."""
        began = time.monotonic()
        try:
            self.world.until(self._is_complete, seconds, "all outputs")
        except AssertionError:
            raise AssertionError(f"not all outputs came within {seconds} s: {self.missing()}") from None
        waited = time.monotonic() - began
        status = self.world.rpc("status_devices")
        online = set(self.world.rpc("online_users"))
        self._journal_is_settled()
        self._take()
        events = [(message, message.json) for message in self.heard]
        unmarked: dict[str, list[int]] = {}
        marked = 0
        by_version: dict[tuple[str, int], Any] = {}
        for message, event in events:
            assert message.endpoint == f"{event['uuid']}.e", (message.topic, event)
            key = (event["about"], event["version"])
            new = key not in by_version
            known = by_version.setdefault(key, event)
            assert known == event, f"one version, two events: {known} {event}"
            if message.user.get("redelivered") == "1":
                marked += 1
            elif self.once or new:  # a broker that restarts sends the judge again what it had, without any mark
                unmarked.setdefault(event["about"], []).append(event["version"])
        for about, versions in unmarked.items():
            for earlier, later in pairwise(versions):
                assert later != earlier, f"{about}: version {later} came twice without a mark"
                assert later > earlier, f"{about}: went back from {earlier} to {later}"
            assert len(set(versions)) == len(versions), about
        for device, sequences in self.statuses.items():
            mine = sorted((v, e["status"]["seq"]) for (_, v), e in by_version.items() if e["uuid"] == device)
            if self.once:
                assert [seq for _, seq in mine] == sequences, f"{device}: decided twice or out of order"
            assert json.loads(status[device]["status"]) == {"seq": mine[-1][1]}, f"{device}: told otherwise than stored"
        for user, count in self.toggles.items():
            mine = sorted((v, e["online"]) for (_, v), e in by_version.items() if e["uuid"] == user)
            assert [online for _, online in mine] == [n % 2 == 0 for n in range(count)], f"{user}: flipped twice"
        assert online & set(self.users) == {user for user, count in self.toggles.items() if count % 2}
        return {
            "inputs": self._next,
            "events": len(by_version),
            "copies": len(events),
            "redelivered": marked,
            "waited_seconds": round(waited, 1),
        }

    def _journal_is_settled(self) -> None:
        """Nothing is owed any more: no entry is left that a restart would send again."""
        redis: Any = Redis.from_url(self.stack.redis.url)
        try:
            end = time.monotonic() + 10
            while left := redis.xlen("eb:{default}:journal"):
                assert time.monotonic() < end, f"{left} journal entries are left"
                time.sleep(0.05)
        finally:
            redis.close()
