"""Canaries: what masks hide must be nowhere but in the copies delivered. Not in Redis, not even for a moment."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.integration.stack import Message, Stack, stack

CANARY = b"CANARY"
PLAIN = {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05Z"}
EVENT = {**PLAIN, "id": "CANARY-1", "card": {"number": "CANARY-2"}, "lines": [{"note": "CANARY-3"}]}
MASKS = ["$.card.*", "$.lines[?(@.note =~ /CANARY.*/)].note", "$.id"]


class Tap:
    """Hears every command that a Redis server is sent."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.sendall(b"MONITOR\r\n")
        self.heard = self._socket.recv(64)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while found := self._socket.recv(1 << 20):
            self.heard += found

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@contextmanager
def tapped(directory: Path, **settings: str) -> Iterator[tuple[Stack, Tap]]:
    with stack(
        directory,
        hears=("bridge/#",),
        AUDIT__ENABLED="true",
        LOG__LEVEL="debug",
        SENDING__EVENT_LIMIT_BYTES="2000",
        **settings,
    ) as found:
        tap = Tap(found.redis.port)
        try:
            yield found, tap
        finally:
            tap.close()


def call(**changes: Any) -> bytes:
    params = {"event": EVENT, "userId": "ann", "masks": MASKS, "qos": 1, **changes}
    return json.dumps(params).encode()


REFUSED = {
    "no type": call(event={"timestamp": PLAIN["timestamp"], "card": "CANARY"}),
    "a type that does not fit": call(event={**EVENT, "type": "CANARY"}),
    "a time that does not fit": call(event={**EVENT, "timestamp": "CANARY"}),
    "no object": call(event="CANARY"),
    "too large": call(event={**EVENT, "more": "CANARY" * 400}),
    "too deep": call(event={**EVENT, "more": json.loads("[" * 70 + '"CANARY"' + "]" * 70)}),
    "a number that nobody can read": call().replace(b'"CANARY-2"', b'"CANARY", "n": 1e999'),
    "a mask that cannot be read": call(masks=["$.card[?(@.number == 'CANARY'"]),
    "a regular expression that cannot": call(masks=["$.card[?(@.number =~ /(CANARY/)]"]),
    "a mask that is none": call(masks=[{"CANARY": 1}]),
    "masks that are none": call(masks="CANARY"),
    "an endpoint that is not there": call(userEndpointId="gone"),
    "a user that cannot be": call(userId="a/b"),
    "a qos and outcomes of another kind": call(outcomes="CANARY"),
    "not JSON": call()[:-1],
    "not even text": call() + b"\xff",
    "another method's parameter": b'{"CANARY": 1',
}


@pytest.mark.parametrize("flavour", ["redis", "valkey"])
def test_what_masks_hide_is_delivered_and_nowhere_else(tmp_path: Path, flavour: str) -> None:
    with tapped(tmp_path, flavour=flavour) as (found, tap):
        world = found.world
        world.rpc("register_endpoint", {"userId": "ann", "userEndpointId": "ann1", "keepAliveSeconds": 600})
        endpoint = found.client()
        endpoint.subscribe("users/endpoints/ann1")

        # Sent, at both QoS and again, while changes share the batches.
        for number in range(20):
            world.publish("presence/users/ann", b"online" if number % 2 else b"offline")
            world.publish("rpc/send_event", call(qos=number % 2, event={**EVENT, "id": f"CANARY-n{number}"}))
        for _ in range(2):
            assert world.request("rpc/send_event", call()) == {"result": 1}
        assert world.request("rpc/send_event", call(event={**EVENT, "new": 1}))["error"]["code"] == "conflict"

        def delivered() -> list[Message]:
            return [m for m in endpoint.messages if CANARY in m.payload]

        endpoint.until(lambda: len(delivered()) >= 20 + 1, what="every event")
        assert len(delivered()) == 20 + 1

        # Refused, with and without somebody to answer.
        for why, payload in REFUSED.items():
            answer = world.request("rpc/send_event", payload)
            assert "error" in answer, why
            assert CANARY not in json.dumps(answer).encode(), why
            world.publish("rpc/send_event", payload)
        world.publish("rpc/nonsense", call())
        world.rpc("online_users")

        # Killed while the broker is silent: the request is delivered again.
        world.publish("rpc/send_event", call(event={**EVENT, "id": "CANARY-again"}))
        found.broker.freeze()
        found.bridge.kill()
        found.broker.thaw()
        found.bridge.start()
        endpoint.expect(lambda m: b"CANARY-again" in m.payload, what="the event of the request delivered again")
        world.rpc("online_users")

        entries = world.rpc("events", {"filter": {"type": "OrderPlacedEvent"}})
        assert len(entries) >= 20 + 1 + 1
        masked = {**EVENT, "id": "*" * 8, "card": {"number": "*" * 8}, "lines": [{"note": "*" * 8}]}
        assert masked in [entry["event"] for entry in entries]

        sinks = {
            "the bridge's log": found.bridge.log.encode(),
            "what Redis was sent": tap.heard,
            "what is kept in Redis": dump(found),
            "what the bridge tells of rejections": b"".join(m.payload for m in world.messages),
        }
        assert b"OrderPlacedEvent" in sinks["what Redis was sent"]
        assert b"invalid_event" in sinks["what the bridge tells of rejections"]
        for name, text in sinks.items():
            at = text.find(CANARY)
            assert at < 0, f"{name}: {text[max(at - 300, 0) : at + 100]!r}"


def test_what_masks_of_routes_hide_is_neither_in_the_audit_stream_nor_in_a_log(tmp_path: Path) -> None:
    route = {"event": "DeviceStatusChangedEvent", "masks": ["$.status..secret", "$.status.note"]}
    status = {"secret": "CANARY-1", "list": [{"secret": "CANARY-2"}, {"open": "seen"}], "note": "CANARY-3"}
    with tapped(tmp_path, ROUTES=json.dumps([route]), ENDPOINTS__DEFAULT_WATCH='["*"]') as (found, tap):
        world = found.world
        world.rpc("register_endpoint", {"userId": "ann", "userEndpointId": "ann1", "keepAliveSeconds": 600})
        endpoint = found.client()
        endpoint.subscribe("users/endpoints/ann1")
        world.publish("presence/devices/lamp/status", status)
        endpoint.expect(lambda m: m.type == "DeviceStatusChangedEvent" and m.json["status"] == status)
        for payload in (json.dumps(status)[:-1].encode(), json.dumps([status] * 1_000).encode()):
            world.publish("presence/devices/lamp/status", payload)
        entries = world.rpc("events", {"filter": {"type": "DeviceStatusChangedEvent"}})
        hidden = {"secret": "*" * 8, "list": [{"secret": "*" * 8}, {"open": "seen"}], "note": "*" * 8}
        assert [entry["event"]["status"] for entry in entries] == [hidden]
        # The record and the journal hold the status itself, since that is what is told; nothing else does.
        commands = tap.heard.split(b"\r\n")
        assert not [line for line in commands if CANARY in line and b":audit" in line]
        assert any(b":audit" in line for line in commands)
        rejected = b"".join(m.payload for m in world.messages if m.topic.endswith("/rejected"))
        assert rejected.count(b"reason") == 2
        assert CANARY not in rejected + found.bridge.log.encode()


def dump(found: Stack) -> bytes:
    """Return everything that Redis holds."""
    client: Any = Redis.from_url(found.redis.url)
    read = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    texts = [repr((key, read[client.type(key)](key))) for key in client.keys("*")]
    client.close()
    assert any("audit" in text for text in texts)
    return "\n".join(texts).encode()
