"""Tells of what is not done: rejected inputs on ``bridge/<name>/rejected``, at most ten a second and how many were left
out; outputs that the broker would not take in the log, a line a second.
"""

from collections.abc import Sequence

import msgspec
import structlog

from bridge.domain.clock import iso_ms
from bridge.domain.inputs import Input
from bridge.domain.values import Output
from bridge.errors import Refusal
from bridge.ports import Broker

log = structlog.get_logger("bridge.reporter")

PER_SECOND = 10
MAXIMUM_TOPIC = 1_024


class Reporter:
    """Publishes rejections to ``topic``, at QoS 0: they are a help to people, and nothing waits for them.

    The line counts every one of them, told or not.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._second = 0
        self._told = 0
        self._omitted = 0
        self._unsendable_second = 0

    def report(self, inbound: Input | None, refusal: Refusal, now_ms: int) -> None:
        """Publish one rejection, unless this second has had its share; the next one then says how many were omitted.

        Args:
            inbound: what came by MQTT; None: it did not.
            refusal: why it was not taken.
            now_ms: when, epoch milliseconds.
        """
        second = now_ms // 1000
        if second != self._second:
            self._second, self._told = second, 0
        if self._told == PER_SECOND:
            self._omitted += 1
            return
        self._told += 1
        topic, size_bytes = ("", 0) if inbound is None else (inbound.topic, len(inbound.payload))
        report: dict[str, object] = {
            "topic": topic[:MAXIMUM_TOPIC],
            "reason": str(refusal),
            "receivedAt": iso_ms(now_ms),
            "sizeBytes": size_bytes,
        }
        if self._omitted:
            report["omitted"] = self._omitted
            self._omitted = 0
        self._broker.publish([Output(self._topic, msgspec.json.encode(report), qos=0)], lambda _: None)

    def report_unsendable(self, outputs: Sequence[Output], largest_packet_bytes: int, now_ms: int) -> None:
        """Log outputs that were dropped because the broker takes no packet as large, unless this second has its line.

        Args:
            outputs: at least one.
            largest_packet_bytes: what it takes.
            now_ms: when, epoch milliseconds.
        """
        second = now_ms // 1000
        if second == self._unsendable_second:
            return
        self._unsendable_second = second
        log.warning(
            "Outputs are larger than the broker takes, and dropped: raise its max_packet_size, or send smaller ones.",
            outputs=sum(output.copies for output in outputs),
            topic=outputs[0].topic,
            payload_bytes=len(outputs[0].payload),
            broker_takes_bytes=largest_packet_bytes,
        )
