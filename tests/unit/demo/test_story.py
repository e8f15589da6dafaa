import itertools
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bridge.demo import story as told
from bridge.demo.story import BOTH, CHAPTERS, Expected, Story

Hear = Callable[[str, bytes], None]


class PerfectWorld:
    """Stands in for all actors: as soon as somebody acts, everything that the chapter expects is heard."""

    def __init__(self, silent_about: str = "") -> None:
        self.silent_about = silent_about
        self.hear: Hear | None = None
        self.story: Story | None = None
        self.number = itertools.count()

    def actor(self, name: str, port: int, hear: Hear | None = None, will: object = None) -> "PerfectWorld":
        self.hear = hear or self.hear
        return self

    def tell(self, topic: str, message: Any = "") -> None:
        if self.story is None or self.hear is None:
            return
        for one in list(self.story._open):
            if one.type != self.silent_about:
                common = {"id": f"e{next(self.number)}", "type": one.type, "timestamp": "2025-01-01T12:00:00.000Z"}
                event = {**EVENT, **common, **one.fields}
                for _ in range(2):  # at least once
                    self.hear(one.endpoint, json.dumps(event).encode())

    def ask(self, method: str, **params: object) -> Any:
        self.tell(method)
        return []

    def vanish(self) -> None:
        self.tell("will")

    def leave(self) -> None:
        pass


EVENT = {
    "uuid": "", "online": True, "busy": False, "cause": "", "status": None, "sessionCreatorName": "", "joinMsg": "",
    "userUuid": "", "joinReply": "", "leavingUsers": [], "userId": "", "userEndpointId": "", "expiresAt": "",
    "previous": "", "state": "", "sender": {"_id": ""}, "content": {"data": []}, "media": {}, "changed": [],
    "participantId": "", "adminId": "", "requestedMedia": [],
}  # fmt: skip


def played(world: PerfectWorld, monkeypatch: pytest.MonkeyPatch) -> tuple[Story, list[str], list[str]]:
    monkeypatch.setattr(told, "Actor", world.actor)
    monkeypatch.setattr(told, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(told, "PATIENCE_SECONDS", 0.2)
    lines: list[str] = []
    ended = threading.Event()
    story = Story(0, lines.append, ended, time.monotonic() + 60)
    world.story = story
    story.start()
    end = time.monotonic() + 20
    while not story.rounds and time.monotonic() < end:
        time.sleep(0.01)
    ended.set()
    return story, story.finish(), lines


def test_nothing_is_missing_where_all_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    story, missing, lines = played(PerfectWorld(), monkeypatch)
    assert missing == []
    assert story.rounds == 1
    assert story.expected == sum(len(chapter.expected) for chapter in CHAPTERS)
    assert sum("12:00:00.000" in line for line in lines) == story.expected  # the copies are not told


BY_HAND = (
    b'{"type": "TeaReadyEvent", "timestamp": "2026-01-01T16:00:00Z"}',  # as `scripts/run` says how to send
    b'{"id": "1", "type": "LeaveSessionEvent", "timestamp": "2026-01-01T16:00:00Z", "leavingUsers": 5}',
    b'{"id": "2", "type": ["?"], "timestamp": 5}',
    b'["tea"]',
    b"tea \xff",
)


class MeddledWorld(PerfectWorld):
    """Somebody sends events of their own meanwhile."""

    def tell(self, topic: str, message: Any = "") -> None:
        super().tell(topic, message)
        if self.hear is not None:
            for payload in BY_HAND:
                self.hear("ann-phone", payload)


def test_what_others_send_meanwhile_is_shown_and_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, missing, lines = played(MeddledWorld(), monkeypatch)
    assert missing == []
    for payload in BY_HAND:
        assert f"{'':12}  ann-phone   {payload.decode(errors='replace')}" in lines


def test_what_is_not_heard_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _, missing, lines = played(PerfectWorld(silent_about="DeviceStatusChangedEvent"), monkeypatch)
    status = 'DeviceStatusChangedEvent {"uuid": "desk-lamp", "status": {"brightness": 80}}'
    assert missing == [f"{endpoint}: {status}" for endpoint in BOTH]
    assert f"{'':14}missing: {missing[0]}" in lines


def test_an_expected_event_fits_by_endpoint_type_and_fields() -> None:
    expected = Expected("e", "LampDimmedEvent", {"uuid": "lamp"})
    assert expected.fits("e", {"type": "LampDimmedEvent", "uuid": "lamp", "more": 1})
    assert not expected.fits("f", {"type": "LampDimmedEvent", "uuid": "lamp"})
    assert not expected.fits("e", {"type": "LampLitEvent", "uuid": "lamp"})
    assert not expected.fits("e", {"type": "LampDimmedEvent", "uuid": "other"})
