"""The witness: hears what the broker made of the inputs, and knows by a model of the bridge what must come of them.

The model is the bridge's own line over a registry in memory, whose clock stands still. It has a durable session of its
own at the broker, as the bridge has: what neither hears the broker has lost.
"""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.faults.ledger import Ledger
from tests.faults.subscriber import Heard, Subscriber
from tests.unit.world import World, message

_NUMBER = re.compile(rb'"seq":(\d+)')
_TICK_EVERY = 1_000  # inputs; what is settled is forgotten then

Call = Callable[[str, Any], Any]
decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


def number_of(event: dict[str, Any]) -> int | None:
    """The number of the input that made an event; statuses, session and room events bear it, presence does not."""
    if "seq" in event:
        return int(event["seq"])
    status = event.get("status")
    if event["type"].endswith("StatusChangedEvent") and isinstance(status, dict):
        return int(status["seq"])
    return None


class Witness:
    """Hears in a thread of its own until `close`.

    Args:
        port: of the broker itself, around every proxy.
        filters: what it hears.
        ignored: what no input holds that the model shall know.
        ledger: is told what must come.
        second_prefix: inputs under it are heard, too; to the model they are like the others.

    Attributes:
        newest: the number of the last input that it heard.
    """

    def __init__(
        self, port: int, filters: list[str], ignored: bytes, ledger: Ledger, *, second_prefix: str = ""
    ) -> None:
        self.newest = 0
        self._ledger = ledger
        self._ignored = ignored
        self._world = World()
        self._lock = threading.Lock()
        self._heard = 0
        self._second_prefix = second_prefix
        if second_prefix:
            filters = [*filters, f"{second_prefix}presence/#"]
        # A copy told to the model again would be told to who has joined meanwhile.
        self._subscriber = Subscriber(port, filters, self._on_input, once=True)

    def close(self) -> None:
        self._subscriber.close()

    def check(self) -> None:
        """Raise what its thread died of."""
        self._subscriber.check()

    def picture(self, take: Callable[[Call], dict[str, Any]]) -> dict[str, Any]:
        """Let ``take`` ask the model."""
        with self._lock:
            return take(self._world.call)

    def _on_input(self, delivery: Heard) -> None:
        if self._ignored in delivery.payload or self._ignored in delivery.topic.encode():
            return
        with self._lock:
            for endpoint, number in self._feed(delivery):
                self._ledger.expect(endpoint, number)
            found = _NUMBER.search(delivery.payload)
            if found:
                self.newest = int(found[1])
                self._ledger.sent(self.newest)

    def _feed(self, delivery: Heard) -> Sequence[tuple[str, int]]:
        world = self._world
        world.registry.now_ms += 1
        world.registry.tick_ms = world.registry.now_ms
        self._heard += 1
        if self._heard % _TICK_EVERY == 0:
            world.tick()
        told: list[tuple[str, int]] = []
        topic = delivery.topic.removeprefix(self._second_prefix)
        for output in world.feed(message(topic, delivery.payload)):
            number = number_of(decode(output.payload)) if output.event_id else None
            if number is not None:
                told.append((output.topic.rpartition("/")[2], number))
        for memory in (world.receipts, world.broker.outputs, world.broker.batches, world.broker.acknowledged):
            memory.clear()
        return told
