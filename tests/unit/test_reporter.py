"""Rejections are told, but never in a flood, and what was left out is told too."""

import json
from typing import Any

from bridge.errors import Refusal
from bridge.reporter import MAXIMUM_TOPIC, PER_SECOND, Reporter
from tests.unit.world import FakeBroker

NOW = 1_700_000_000_000
REFUSAL = Refusal("not_json", "payload is not JSON")


class Told(FakeBroker):
    def __init__(self) -> None:
        super().__init__()
        self.reporter = Reporter(self, "bridge/b1/rejected")

    def report(self, now_ms: int, times: int = 1, topic: str = "t") -> None:
        for _ in range(times):
            self.reporter.report((topic, 7), REFUSAL, now_ms)

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
