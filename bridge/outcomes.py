"""Outcomes: what follows from the broker's word on a commit's outputs, in the order of the line.

What was told goes to the audit stream. Some answers are known only once every copy has its PUBACK: until then their
inputs stay unacknowledged; then what a repetition has to find is kept, the answer is published, and with its PUBACK
the input is done. All of it takes one trip to Redis for as many commits as are settled.
"""

import asyncio
import itertools
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import msgspec
import structlog

from bridge.domain.audit import AuditAnswer, Auditor, outcome_of, shown
from bridge.domain.decisions import Later
from bridge.domain.intake import Reply, answer
from bridge.domain.records import Sent
from bridge.domain.sending import SendAnswer
from bridge.domain.values import Kept, Output
from bridge.errors import RegistryUnavailable
from bridge.ports import Broker, Registry, Waiter
from bridge.settlement import Group, Held, Settlement

log = structlog.get_logger("bridge.outcomes")

MAXIMUM_READY = 1_000
MAXIMUM_TAKEN = 32  # commits in one trip, each of some megabytes at most
TRIM_SECONDS = 60.0
AUDIT_PAGE = 500  # entries read in one trip
MAXIMUM_ANSWER_BYTES = 900_000  # an answer ends before it grows beyond; its caller goes on from the last id
_BACKOFF_SECONDS = (0.05, 2.0)

_encode = msgspec.json.Encoder().encode
_T = TypeVar("_T")


class Asked(msgspec.Struct, frozen=True, gc=False):
    """Somebody who is answered once the broker has settled outputs ``first`` to ``first + count`` of a commit."""

    answer: Later
    first: int
    count: int
    reply: Reply | Waiter | None
    held: Held | None


class _Slot:
    """One commit's place in the order; ``codes`` None until the broker has settled all its outputs."""

    __slots__ = ("asked", "codes", "organization", "outputs")

    def __init__(self, organization: str, outputs: Sequence[Output], asked: Sequence[Asked]) -> None:
        self.organization = organization
        self.outputs = outputs
        self.asked = asked
        self.codes: list[int] | None = None


class Outcomes:
    """Waits for the broker's word beside the line; one per process.

    Args:
        registry: keeps what a repetition has to find, and the audit stream. Best on a connection of its own: the line
            then waits for none of this.
        broker: publishes the answers.
        settlement: holds the inputs until their answers are acknowledged.
        auditor: makes audit entries; None where there is no audit.
        maximum_audit: how many entries each organization's stream keeps.
        counts: where values are counted that masks cannot hide.

    Attributes:
        in_hand: (organization, record key) -> a send whose outcome Redis may not know yet.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        broker: Broker,
        settlement: Settlement,
        auditor: Auditor | None,
        maximum_audit: int,
        counts: Counter[str],
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._settlement = settlement
        self._auditor = auditor
        self._maximum_audit = maximum_audit
        self._counts = counts
        self._slots: deque[_Slot] = deque()
        self._ready = 0
        self._working = 0
        self._waiting = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._kept: list[tuple[str, str]] = []
        self.in_hand: dict[tuple[str, str], Sent] = {}

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer, and nothing for the audit."""
        return not self._slots and not self._working

    # The line's side.

    def expect(
        self,
        group: Group,
        outputs: Sequence[Output],
        asked: Sequence[Asked] = (),
        sends: Mapping[str, Sent] = MappingProxyType({}),
    ) -> Callable[[list[int]], None]:
        """Take a commit's place in the order.

        Args:
            group: to be told first.
            outputs: what the commit publishes.
            asked: who waits for an answer, in order.
            sends: record key -> the sends of this commit that may be repeated.

        Returns:
            What is to be called with the reason codes of the outputs' copies.
        """
        if not asked and not (self._auditor and outputs):
            return group.settled
        self.in_hand.update(((group.organization, key), sent) for key, sent in sends.items())
        slot = _Slot(group.organization, outputs, asked)
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

    # Beside the line.

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as readers:
            await self.follow(readers.create_task)

    async def follow(self, spawn: Callable[[Coroutine[None, None, None]], object]) -> None:
        """Work until cancelled; ``spawn`` starts what takes its time, so that nobody waits for it but its caller."""
        while True:
            await self.wait()
            self._working += 1
            slots: list[_Slot] = []
            while self.is_settled and len(slots) < MAXIMUM_TAKEN:
                slots.append(self._slots.popleft())
            await self._keep(slots)
            for slot in slots:
                self._answer(slot, spawn)
            self._ready -= len(slots)
            self._room.set()
            self._working -= 1

    async def wait(self) -> None:
        """Return once the oldest commit is settled."""
        while not self.is_settled:
            self._waiting.clear()
            await self._waiting.wait()

    @property
    def is_settled(self) -> bool:
        """Whether the broker has settled the oldest commit."""
        return bool(self._slots) and self._slots[0].codes is not None

    async def _keep(self, slots: Sequence[_Slot]) -> None:
        """Settle the sends, and keep what is to be kept; returns once Redis has it."""
        kept: dict[str, Kept] = {}
        for slot in slots:
            what = kept.setdefault(slot.organization, Kept())
            told = 0
            by_output = _by_output(slot.outputs, slot.codes or [])
            for one in slot.asked:
                if not isinstance(one.answer, SendAnswer) or one.answer.command is None:
                    continue
                command, sent, end = one.answer.command, one.answer.sent, one.first + one.count
                codes = itertools.chain.from_iterable(by_output[one.first : end])
                sent.outcomes = [outcome_of(command.qos, code) for code in codes]
                for mask, hits in enumerate(command.non_string_hits):
                    self._counts[f"unmasked:{mask}"] += hits
                if command.key:
                    what.sent[command.key] = _encode(sent)
                if self._auditor is not None:
                    what.audit += self._auditor.told(slot.outputs[told : one.first], by_output[told : one.first])
                    what.audit += self._auditor.sent(command.note, sent.endpoints, sent.outcomes)
                    told = end
            if self._auditor is not None:
                what.audit += self._auditor.told(slot.outputs[told:], by_output[told:])
        if any(what.sent or what.audit for what in kept.values()):
            for organization in await self._insist(lambda: self._registry.keep(kept, self._maximum_audit)):
                log.error("The audit stream's key holds what the bridge did not write.", organization=organization)
            self._kept += ((organization, key) for organization, what in kept.items() for key in what.sent)

    def _answer(self, slot: _Slot, spawn: Callable[[Coroutine[None, None, None]], object]) -> None:
        """Publish the answers; their PUBACKs let the inputs go."""
        inputs: list[Held] = []
        outputs: list[Output] = []
        for one in slot.asked:
            if isinstance(one.answer, AuditAnswer):
                self._working += 1
                spawn(self._read(slot.organization, one, one.answer))
                continue
            if one.held is not None:
                inputs.append(one.held)
            outputs += _answered(one.reply, one.answer.result())
        if inputs or outputs:
            self._broker.publish(outputs, self._settlement.group(slot.organization, None, inputs).settled)

    async def _read(self, organization: str, asked: Asked, wanted: AuditAnswer) -> None:
        """Read the audit stream and answer; whatever came before the question is in it."""
        found: list[dict[str, object]] = []
        start, size = wanted.start, 0
        while start:
            page = await self._insist(lambda: self._registry.audit(organization, start, AUDIT_PAGE))  # noqa: B023
            for entry_id, text in page:
                entry = shown(entry_id, text, wanted.wanted)
                if entry is not None:
                    size += len(text)
                    if len(found) == wanted.limit or size > MAXIMUM_ANSWER_BYTES:
                        page = []
                        break
                    found.append(entry)
            start = f"({page[-1][0]}" if len(page) == AUDIT_PAGE else ""
        inputs = [] if asked.held is None else [asked.held]
        self._broker.publish(_answered(asked.reply, found), self._settlement.group(organization, None, inputs).settled)
        self._working -= 1

    async def trim(self, maximum_age_ms: int) -> None:
        """Delete audit entries that are too old, those of quiet organizations too, until cancelled."""
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            await self._insist(lambda: self._registry.trim_audit(maximum_age_ms))

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        wait, longest = _BACKOFF_SECONDS
        while True:
            try:
                return await ask()
            except RegistryUnavailable:  # the line says so
                await asyncio.sleep(random.uniform(wait / 2, wait))
                wait = min(wait * 2, longest)


def _by_output(outputs: Sequence[Output], codes: Sequence[int]) -> list[Sequence[int]]:
    """Divide the reason codes of all copies by the output that they are copies of."""
    ends = [*itertools.accumulate(output.copies for output in outputs)]
    return [codes[end - output.copies : end] for output, end in zip(outputs, ends, strict=True)]


def _answered(reply: Reply | Waiter | None, result: object) -> list[Output]:
    """Answer who waits within this process; return what is to be published for who does not."""
    if isinstance(reply, Reply):
        return [Output(reply.topic, answer(result), correlation=reply.correlation)]
    if reply is not None:
        reply.answer(result)
    return []
