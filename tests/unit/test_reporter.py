"""Rejections are told, but never in a flood, and what was left out is told too."""

import json
from collections import Counter
from typing import Any

from bridge.domain.inputs import Input
from bridge.errors import Refusal
from bridge.reporter import MAXIMUM_TOPIC, PER_SECOND, Reporter
from tests.unit.world import REPLIES, FakeBroker, World, message

NOW = 1_700_000_000_000
REFUSAL = Refusal("not_json", "payload is not JSON")


class Told(FakeBroker):
    def __init__(self) -> None:
        super().__init__()
        self.reporter = Reporter(self, "bridge/b1/rejected")

    def report(self, now_ms: int, times: int = 1, topic: str = "t") -> None:
        for _ in range(times):
            self.reporter.report(Input(topic, b"7 bytes"), REFUSAL, now_ms)

    @property
    def reports(self) -> list[Any]:
        return [json.loads(output.payload) for output in self.outputs]


def test_what_was_not_taken_and_why() -> None:
    told = Told()
    told.report(NOW)
    assert told.reports == [
        {
            "topic": "t",
            "reason": "not_json: payload is not JSON",
            "receivedAt": "2023-11-14T22:13:20.000Z",
            "sizeBytes": 7,
        }
    ]
    [output] = told.outputs
    assert (output.topic, output.qos, output.retain, output.event_id) == ("bridge/b1/rejected", 0, False, "")


def test_ten_a_second_and_the_next_one_says_how_many_were_omitted() -> None:
    told = Told()
    told.report(NOW, times=PER_SECOND + 1)
    told.report(NOW + 999, times=25)
    assert len(told.reports) == PER_SECOND
    told.report(NOW + 1000, times=2)
    assert [report.get("omitted") for report in told.reports[PER_SECOND:]] == [26, None]
    told.report(NOW + 2000, times=PER_SECOND)
    assert not [report for report in told.reports[-PER_SECOND:] if "omitted" in report]


def test_a_long_topic_is_cut() -> None:
    told = Told()
    told.report(NOW, topic="x" * 5000)
    assert told.reports[0]["topic"] == "x" * MAXIMUM_TOPIC


C = "CANARY"
DEEP = "[" * 80 + f'"{C}"' + "]" * 80
PAYLOADS: list[Any] = [
    *(C, DEEP, [C], {"type": C}, {"@type": C}, {"type": "USER_CONNECTED", "uuid": C}, {"status": C, "timestamp": C}),
    *({"type": "USER_CONNECTED", "timestamp": C}, {"header": {"time": C}, "events": [{"type": C}]}, {"header": C}),
    *({"category": C}, {"category": "online", "content": C, "sender": C}),
    {"category": "online", "content": {"sessionId": f"{C}/"}, "sender": {"_id": f"{C}/#"}},
    {"type": "JoinSessionEvent", "sessionId": f"{C}#", "participants": C, "invitees": [f"{C}#"]},
    *({"type": "StopSessionEvent", "timestamp": C}, {"type": "JoinSessionReplyEvent", "joinReply": C, "userUuid": C}),
    *({"event": C, "state": 5, "connections": C}, {"roles": [C]}, {"roles": C}, {"mediaSettings": C}),
    *({"mediaSettings": {"isAudioEnabled": C}}, {"roomId": {"a": C}}, {"handRaised": C}),
    *({"muteStates": C}, {"muteStates": {"AUDIO": C}}, {"mediaOptions": C, "muteStates": [C]}),
    {"type": "mute-participant", "muteStates": C, "adminId": f"{C}#"},
    *({"requestedMedia": C}, {"requestedMedia": [C]}, {"userId": {"id": f"{C}#", "type": C}}),
    *({"keepAliveSeconds": C}, {"kind": C, "userId": "a"}, {"limit": C}, {"cursor": C}, {"since": C}, {"uuid": [C]}),
]
TOPICS = (
    *("presence/users/a", "presence/participants/a", "presence/devices/a", "presence/users/a/status"),
    *("presence/rooms/r", "clients/a/rooms/r", "sessions/s", "sessions/s/permissions", "sessions/s/permissions/p"),
    *("sessions/s/participants/p/status", "clients/a/sessions/s/status", "users/endpoints/e/keepalive"),
    *("rpc/online_users", "rpc/mute_participant", "rpc/register_endpoint", "rpc/send_event"),
)


def test_no_rejection_repeats_what_a_payload_says() -> None:
    world = World()
    told: Counter[str] = Counter()
    for topic in TOPICS:
        for payload in PAYLOADS:
            text = payload if isinstance(payload, str) else json.dumps(payload)
            world.feed(message(topic, text), message(topic, f"{text[:-1]}\0"))
            world.pass_seconds(0.3)
    for rejection in world.rejections:
        assert C not in json.dumps(rejection)
        told[rejection["reason"].partition(":")[0]] += 1
    assert told.total() > 800
    assert len(told) >= 8


def test_no_answer_repeats_what_parameters_say() -> None:
    world = World()
    for method in ("online_users", "mute_participant", "register_endpoint", "send_event", "events", "explain"):
        for payload in PAYLOADS:
            outputs = world.feed(message(f"rpc/{method}", payload, response_topic=REPLIES, correlation=b"1"))
            [answer] = [output.payload for output in outputs if output.topic == REPLIES]
            assert C.encode() not in answer
