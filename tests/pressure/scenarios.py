"""Each scenario presses one stack, checks that nothing good was lost or held back, and returns its figures.

What is checked are counts and order, never times: `scripts/pressure` prints those.
"""

import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
from redis import Redis

from tests.faults.proxy import Proxy
from tests.faults.publisher import Publisher
from tests.integration.stack import Client, Stack
from tests.pressure import raw
from tests.pressure.callers import Callers

Figures = dict[str, object]
PATIENCE_SECONDS = 180.0
WATCHER = "watcher"


class Gauge:
    """What the bridge says of itself: counts, and the most memory that its process ever had."""

    def __init__(self, stack: Stack) -> None:
        self._url = f"{stack.bridge.http_url}/metrics"
        assert stack.bridge.process is not None
        self._status = Path(f"/proc/{stack.bridge.process.pid}/status")

    def count(self, name: str) -> int:
        """A count of `/metrics`; all its labels together."""
        text = httpx.get(self._url, timeout=30).text
        found = re.findall(rf"^endpoint_bridge_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return round(sum(map(float, found)))

    @property
    def peak_mib(self) -> int:
        """The largest resident set so far; 0 where the system does not tell."""
        found = re.search(r"VmHWM:\s+(\d+)", self._status.read_text()) if self._status.exists() else None
        return int(found[1]) // 1024 if found else 0


def watched(stack: Stack) -> None:
    """Let one endpoint watch everything."""
    params = {"userId": WATCHER, "userEndpointId": WATCHER, "keepAliveSeconds": 86_400, "watch": ["*"]}
    stack.world.rpc("register_endpoint", params)


def until(is_so: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, f"not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.05)


def _numbers(client: Client, mark: int, endpoint: str, uuid: str) -> list[int]:
    """The statuses of a device that an endpoint was told, in order."""
    topic = f"users/endpoints/{endpoint}"
    told = [message.json for message in client.messages[mark:] if message.topic == topic]
    return [event["status"] for event in told if event["type"] == "DeviceStatusChangedEvent" and event["uuid"] == uuid]


def rejects(stack: Stack, *, qos: int, junk: int, per_second: float) -> Figures:
    """A flood of what cannot be taken, and a trickle of good events through the middle of it."""
    gauge, world = Gauge(stack), stack.world
    watched(stack)
    before, log_bytes = gauge.peak_mib, len(stack.bridge.log)
    rejected, dropped = gauge.count("rejected_total"), gauge.count("dropped_qos0_total")
    mark = world.mark()
    payloads = (b"{not json", b"\xff\xfe", b'{"type": "NONSENSE"}', b'{"type": 77}', b"[[[[", b"{}" * 50)
    bad = [
        raw.publish(f"presence/devices/bad{number % 7}", payloads[number % len(payloads)], packet_id=number * qos)
        for number in range(1, 601)
    ]
    torrent = raw.Torrent(stack.broker.port, bad, per_second)
    seconds: list[float] = []
    began = time.monotonic()
    try:
        while torrent.sent < junk:
            sent_at, number = time.monotonic(), len(seconds)
            world.publish("presence/devices/good/status", str(number))
            heard = world.expect(
                lambda m: m.endpoint == WATCHER and m.json.get("status") == number,  # noqa: B023
                mark=mark,
                seconds=PATIENCE_SECONDS,
            )
            seconds.append(heard.at - sent_at)
    finally:
        torrent.close()
    lasted = time.monotonic() - began
    before_it = rejected + dropped
    until(
        lambda: gauge.count("rejected_total") + gauge.count("dropped_qos0_total") == before_it + torrent.sent,
        "each bad one is counted",
    )
    until(lambda: not gauge.count("waiting_inputs"), "the flood is over")
    rejected, dropped = gauge.count("rejected_total") - rejected, gauge.count("dropped_qos0_total") - dropped
    assert _numbers(world, mark, WATCHER, "good") == list(range(len(seconds))), "all good ones came, in order"
    reports = [m for m in world.messages[mark:] if m.topic.endswith("/rejected")]
    assert len(reports) <= 10 * (lasted + 60)
    assert len(stack.bridge.log) - log_bytes < 20_000, "the log is not flooded"
    return {
        "bad": torrent.sent,
        "bad/s": round(torrent.sent / lasted),
        "rejected/s": round(rejected / lasted),
        "dropped": dropped,
        "good": len(seconds),
        "good p50 ms": round(1000 * statistics.median(seconds)),
        "good max ms": round(1000 * max(seconds)),
        "MiB before": before,
        "MiB peak": gauge.peak_mib,
    }


def never_acknowledging(stack: Stack, *, events: int) -> Figures:
    """One endpoint's client never acknowledges: the broker queues for it, and drops; all others hear everything."""
    gauge, world = Gauge(stack), stack.world
    for endpoint in ("stuck", "well"):
        params = {"userId": endpoint, "userEndpointId": endpoint, "keepAliveSeconds": 86_400, "watch": ["device:tick"]}
        world.rpc("register_endpoint", params)
    before = gauge.peak_mib
    with raw.never_acknowledge(stack.broker.port, "stuck-client", "users/endpoints/stuck"):
        publisher = Publisher(stack.broker.port)
        mark, began = world.mark(), time.monotonic()
        try:
            for number in range(events):
                publisher.put("presence/devices/tick/status", b"%d" % number)
            publisher.wait(PATIENCE_SECONDS)
        finally:
            publisher.close()
        until(lambda: len(_numbers(world, mark, "well", "tick")) >= events, "the others hear everything")
        lasted = time.monotonic() - began
    assert _numbers(world, mark, "well", "tick") == list(range(events))
    until(lambda: not gauge.count("undelivered_commits"), "nothing waits for it")
    return {"events": events, "events/s": round(events / lasted), "MiB before": before, "MiB peak": gauge.peak_mib}


def way_cut(
    stack: Stack, way: Proxy, *, inputs: int, per_second: float, large_bytes: int = 0, calls_per_second: float
) -> Figures:
    """The bridge loses its way to the broker while devices and HTTP callers go on.

    The broker keeps the devices' messages for it; callers are answered, or told what became of their request.
    """
    gauge, world = Gauge(stack), stack.world
    watched(stack)
    before, mark = gauge.peak_mib, world.mark()
    fill = "x" * large_bytes
    publisher = Publisher(stack.broker.port)
    callers = Callers(int(stack.bridge.settings["ENDPOINT_BRIDGE_HTTP__PORT"]), WATCHER, calls_per_second, fill)
    began, last = time.monotonic(), 0
    try:
        publisher.put("presence/devices/far/status", b"-1")
        publisher.wait(PATIENCE_SECONDS)
        until(lambda: callers.sent, "callers are answered")
        way.freeze()
        before_it = callers.answers.copy()
        while last < inputs:
            due = min(inputs, int((time.monotonic() - began) * per_second) + 1)
            for number in range(last, due):
                publisher.put(f"presence/devices/far{number % 500}/status", json.dumps([number, fill]).encode())
            last = due
            time.sleep(0.02)
        publisher.wait(PATIENCE_SECONDS)
        away = time.monotonic() - began
        away_mib, answered = gauge.peak_mib, callers.answers - before_it
        way.thaw()
        publisher.put("presence/devices/far/status", b"1")
        read = mark

        def is_back() -> bool:
            nonlocal read
            new = world.messages[read:]
            read += len(new)
            told = [m.json for m in new if m.endpoint == WATCHER]
            return any(event.get("uuid") == "far" and event.get("status") == 1 for event in told)

        until(is_back, "it has caught up")
        caught_up = time.monotonic() - began - away
        sent = len(callers.sent)
        until(lambda: len(callers.sent) > sent, "callers are served again")
    finally:
        publisher.close()
        way.thaw()
        callers.close()
    world.rpc("online_users", seconds=PATIENCE_SECONDS)  # behind all that came before
    told = [m.json for m in world.messages[mark:] if m.endpoint == WATCHER]
    heard = {event["status"][0] for event in told if isinstance(event.get("status"), list)}
    assert heard == set(range(inputs)), f"{inputs - len(heard)} of {inputs} were lost"
    called = {event["number"] for event in told if event["type"] == "CallMadeEvent"}
    assert callers.sent <= called, f"{len(callers.sent - called)} events that HTTP said were delivered were lost"
    assert not callers.refused & called, "of these events HTTP said that nothing was done"
    assert not callers.answers["keepalive_endpoint 503 the MQTT broker is away"], "keepalives need no broker"
    return {
        "inputs": inputs,
        "away s": round(away),
        "caught up s": round(caught_up, 1),
        "answers while away": _told(answered),
        "answers after it": _told(callers.answers - before_it - answered),
        "MiB before": before,
        "MiB peak while away": away_mib,
        "MiB peak": gauge.peak_mib,
    }


def _told(answers: Counter[str]) -> str:
    return "(" + ", ".join(f"{what}: {count}" for what, count in sorted(answers.items())) + ")"


def storm(stack: Stack, *, clients: int, rounds: int = 1) -> Figures:
    """Everybody connects at once and says so, and then all connections break at once."""
    gauge, world = Gauge(stack), stack.world
    before, began = gauge.peak_mib, time.monotonic()
    for _ in range(rounds):
        topics = [f"presence/devices/storm{number}" for number in range(clients)]
        opened = [
            raw.connect(stack.broker.port, f"storm-{number}", will=(topic, b"offline"))
            for number, topic in enumerate(topics)
        ]
        for one, topic in zip(opened, topics, strict=True):
            one.sendall(raw.publish(topic, b"online", packet_id=1))
        until(lambda: _online(world) == clients, "all are online")
        for one in opened:
            one.close()
        until(lambda: _online(world) == 0, "all are offline")
    return {
        "clients": clients,
        "rounds": rounds,
        "s": round(time.monotonic() - began, 1),
        "MiB before": before,
        "MiB peak": gauge.peak_mib,
    }


def _online(world: Client) -> int:
    found, cursor = 0, ""
    while True:
        page = world.rpc("online_devices", {"limit": 5000, **({"cursor": cursor} if cursor else {})})
        found += sum(uuid.startswith(("storm", "kept")) for uuid in page)
        if len(page) < 5000:
            return found
        cursor = page[-1]


def retained(stack: Stack, *, messages: int) -> Figures:
    """The bridge subscribes anew where the broker keeps so many retained messages."""
    gauge, world = Gauge(stack), stack.world
    assert stack.bridge.end() == 0
    with Redis.from_url(stack.redis.url, decode_responses=True) as redis:
        client_id = str(redis.hget("eb:facts", "client_id"))
    raw.connect(stack.broker.port, client_id).close()  # a clean session: what it had subscribed to is forgotten
    loader = raw.connect(stack.broker.port, "loader")
    for number in range(messages):
        packet_id = number % 60_000 + 1
        loader.sendall(raw.publish(f"presence/devices/kept{number}", b"online", packet_id=packet_id, retain=True))
        if number % 1000 == 999 or number == messages - 1:
            _read_pubacks(loader, packet_id)
    loader.close()
    began = time.monotonic()
    stack.bridge.start()
    gauge = Gauge(stack)
    before = gauge.peak_mib
    until(lambda: _online(world) >= messages, "all are known")
    return {
        "messages": messages,
        "known after s": round(time.monotonic() - began, 1),
        "MiB before": before,
        "MiB peak": gauge.peak_mib,
    }


def _read_pubacks(opened: object, last: int) -> None:
    """Read PUBACKs (with or without a reason code) until that of packet id ``last``."""
    assert hasattr(opened, "recv")
    wanted = last.to_bytes(2, "big")
    seen = b""
    end = time.monotonic() + PATIENCE_SECONDS
    while not seen.endswith((b"\x40\x02" + wanted, b"\x40\x03" + wanted + b"\x10", b"\x40\x04" + wanted + b"\x10\x00")):
        assert time.monotonic() < end, "the broker does not acknowledge"
        seen = (seen + opened.recv(1 << 16))[-16:]


def largest(stack: Stack) -> Figures:
    """Messages as large as the bridge takes, a byte more, and as large as a packet can be; good ones in between."""
    gauge, world = Gauge(stack), stack.world
    before, rejected = gauge.peak_mib, gauge.count("rejected_total")
    status = json.dumps("x" * (16_384 - 2)).encode()
    assert len(status) == 16_384
    event = {"type": "LargeThingEvent", "timestamp": "2026-01-31T12:00:00Z", "text": ""}
    event["text"] = "x" * (262_144 - len(json.dumps(event)))
    for _ in range(20):
        world.publish("presence/devices/large/status", status)
        world.publish("presence/devices/large/status", status + b" ")  # one too many
        world.publish("presence/devices/large", b" " * 65_537)
        world.publish("presence/devices/large", b"[" * 1_000_000)
        world.publish("sessions/large", json.dumps({"type": "JoinSessionEvent", "x": "y" * 65_000}).encode())
    mark = world.mark()
    params = {"userId": "large", "userEndpointId": "large", "keepAliveSeconds": 600}
    world.rpc("register_endpoint", params)
    sent = world.rpc("send_event", {"userId": "large", "event": event, "qos": 1})
    heard = world.expect(lambda m: m.endpoint == "large" and m.json.get("type") == "LargeThingEvent", mark=mark)
    assert (sent, heard.json) == (1, event)
    assert gauge.count("rejected_total") - rejected == 60
    assert world.rpc("explain", {"kind": "device", "uuid": "large"})["status"]["bytes"] == 16_384
    return {"messages": 101, "rejected": 60, "MiB before": before, "MiB peak": gauge.peak_mib}
