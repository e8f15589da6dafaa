"""Outcomes: what follows from the broker's word on a commit's outputs, in the order of the line.

Some answers are known only once every copy has its PUBACK. Until then their inputs stay unacknowledged; then what a
repetition has to find is kept, the answer is published, and with its PUBACK the input is done.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from bridge.domain.decisions import Later
from bridge.domain.intake import Reply, answer
from bridge.domain.records import Sent
from bridge.domain.sending import SendAnswer, outcomes_of
from bridge.domain.values import Kept, Output
from bridge.errors import RegistryUnavailable
from bridge.ports import Broker, Registry
from bridge.settlement import Group, Held, Settlement

log = structlog.get_logger("bridge.outcomes")

MAXIMUM_READY = 1_000
_BACKOFF_SECONDS = (0.05, 2.0)
_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, frozen=True, gc=False):
    """Somebody who is answered once the broker has settled outputs ``first`` to ``first + count`` of a commit."""

    answer: Later
    first: int
    count: int
    reply: Reply | None
    held: Held | None


class _Slot:
    """One commit's place in the order; ``codes`` None until the broker has settled all its outputs."""

    __slots__ = ("asked", "codes", "organization")

    def __init__(self, organization: str, asked: Sequence[Asked]) -> None:
        self.organization = organization
        self.asked = asked
        self.codes: list[int] | None = None


class Outcomes:
    """Waits for the broker's word beside the line; one per process.

    Args:
        registry: keeps what a repetition has to find.
        broker: publishes the answers.
        settlement: holds the inputs until their answers are acknowledged.

    Attributes:
        in_hand: (organization, record key) -> a send whose outcome Redis may not know yet.
    """

    def __init__(self, registry: Registry, broker: Broker, settlement: Settlement) -> None:
        self._registry = registry
        self._broker = broker
        self._settlement = settlement
        self._slots: deque[_Slot] = deque()
        self._ready = 0
        self._waiting = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_busy = False
        self._kept: list[tuple[str, str]] = []
        self.in_hand: dict[tuple[str, str], Sent] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._slots and not self._is_busy

    def expect(self, group: Group, asked: Sequence[Asked], sends: Mapping[str, Sent]) -> Callable[[list[int]], None]:
        """Take a commit's place in the order.

        Args:
            group: to be told first.
            asked: who waits for an answer.
            sends: record key -> the sends of this commit that may be repeated.

        Returns:
            What is to be called with the reason codes of the commit's outputs.
        """
        if not asked:
            return group.settled
        self.in_hand.update(((group.organization, key), sent) for key, sent in sends.items())
        slot = _Slot(group.organization, asked)
        for one in asked:
            if one.held is not None:
                one.held.waiting += 1
        self._slots.append(slot)

        def settled(reason_codes: list[int]) -> None:
            group.settled(reason_codes)
            slot.codes = reason_codes
            self._ready += 1
            if self._ready >= MAXIMUM_READY:
                self._room.clear()
            self._waiting.set()

        return settled

    def forget_kept(self) -> None:
        """Let go of what Redis knows by now. The line says when: a load on its way may be older than that."""
        for key in self._kept:
            del self.in_hand[key]
        self._kept.clear()

    async def drained(self) -> None:
        """Return once few enough commits wait for Redis that more may be made."""
        await self._room.wait()

    async def wait(self) -> None:
        """Return once the oldest commit is settled."""
        while not self.is_settled:
            self._waiting.clear()
            await self._waiting.wait()

    @property
    def is_settled(self) -> bool:
        """Whether the broker has settled the oldest commit."""
        return bool(self._slots) and self._slots[0].codes is not None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.wait()
            self._is_busy = True
            slots: list[_Slot] = []
            while self.is_settled:
                slots.append(self._slots.popleft())
            await self._keep(slots)
            for slot in slots:
                self._answer(slot)
            self._ready -= len(slots)
            self._room.set()
            self._is_busy = False

    async def _keep(self, slots: Sequence[_Slot]) -> None:
        """Settle the sends, and keep those that may be repeated; returns once Redis has them."""
        kept: dict[str, Kept] = {}
        for slot in slots:
            for one in slot.asked:
                answer_later, codes = one.answer, slot.codes or []
                if isinstance(answer_later, SendAnswer) and answer_later.command is not None:
                    command, sent = answer_later.command, answer_later.sent
                    sent.outcomes = outcomes_of(command.qos, codes[one.first : one.first + one.count])
                    if command.key:
                        what = kept.setdefault(slot.organization, Kept())
                        what.sent[command.key] = _encode(sent)
        if kept:
            await self._insist(kept)
            self._kept += ((organization, key) for organization, what in kept.items() for key in what.sent)

    def _answer(self, slot: _Slot) -> None:
        """Publish the answers; their PUBACKs let the inputs go."""
        inputs = [one.held for one in slot.asked if one.held is not None]
        outputs = [
            Output(one.reply.topic, answer(one.answer.result()), correlation=one.reply.correlation)
            for one in slot.asked
            if one.reply is not None
        ]
        group = self._settlement.group(slot.organization, None, inputs)
        self._broker.publish(outputs, group.settled)

    async def _insist(self, kept: dict[str, Kept]) -> None:
        wait, longest = _BACKOFF_SECONDS
        while True:
            try:
                return await self._registry.keep(kept)
            except RegistryUnavailable:  # the line says so
                await asyncio.sleep(random.uniform(wait / 2, wait))
                wait = min(wait * 2, longest)
