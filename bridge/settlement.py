"""Settlement: from the commit to the moment when nothing of it is owed any more.

An input is acknowledged when all its effects are committed and their outputs acknowledged. Its identity is held from
arrival until its journal entry is deleted, so that a copy with DUP joins the first one and is not decided twice. A
journal entry is deleted when the broker has surely seen the PUBACKs of its inputs (DESIGN 2, "settle").
"""

from collections import Counter, deque
from collections.abc import Iterable

import msgspec

from bridge.domain.values import Receipt
from bridge.ports import Broker


class Held(msgspec.Struct, eq=False, gc=False):
    """One QoS 1 input: its identity, its latest delivery, and how many parts of its work are not settled yet."""

    packet_id: int
    digest: int
    receipt: Receipt | None
    waiting: int = 1
    done: bool = False


class Group:
    """The inputs and the journal entry (None: none was needed) of one commit, until both are settled."""

    __slots__ = ("_settlement", "delivered", "entry", "inputs", "organization")

    def __init__(self, settlement: "Settlement", organization: str, entry: str | None, inputs: list[Held]) -> None:
        self._settlement = settlement
        self.organization = organization
        self.entry = entry
        self.inputs = inputs
        self.delivered = False

    def settled(self, reason_codes: list[int]) -> None:
        """All outputs are acknowledged, whatever the code: let the inputs be."""
        self.delivered = True
        self._settlement.delivered(self, reason_codes)


class Settlement:
    """Who waits for what. One per process.

    Args:
        broker: acknowledges inputs.
        counts: where refused outputs and joined copies are counted.
    """

    def __init__(self, broker: Broker, counts: Counter[str]) -> None:
        self._broker = broker
        self._counts = counts
        self._held: dict[int, Held] = {}
        self._groups: deque[Group] = deque()

    @property
    def undelivered(self) -> int:
        """How many commits still wait for PUBACKs of their outputs."""
        return sum(not group.delivered for group in self._groups)

    @property
    def is_journaled(self) -> bool:
        """Whether a journal entry stands for something that the broker has not confirmed yet."""
        return any(group.entry is not None for group in self._groups)

    def hold(self, receipt: Receipt, digest: int, is_duplicate: bool) -> Held | None:
        """Hold an input that arrived; None where it is a copy of one that is held already."""
        packet_id = receipt.packet_id
        if is_duplicate:
            known = self._held.get(packet_id)
            if known is not None and known.digest == digest:
                self._counts["joined"] += 1
                known.receipt = receipt
                if known.done:
                    self._broker.acknowledge((receipt,))
                return None
        held = self._held[packet_id] = Held(packet_id, digest, receipt)
        return held

    def recovered(self, inputs: Iterable[tuple[int, int]]) -> list[Held]:
        """Hold the inputs of a journal entry that an ended bridge left, in case they come again."""
        held = [Held(packet_id, digest, None) for packet_id, digest in inputs]
        self._held.update((one.packet_id, one) for one in held)
        return held

    def forget_session(self) -> None:
        """The broker lost the session: packet ids mean nothing any more."""
        self._held.clear()

    def group(self, organization: str, entry: str | None, inputs: list[Held]) -> Group:
        """Begin to wait for one commit's outputs."""
        group = Group(self, organization, entry, inputs)
        self._groups.append(group)
        return group

    def delivered(self, group: Group, reason_codes: list[int]) -> None:
        """Acknowledge each input of the group that waits for nothing else."""
        if reason_codes and max(reason_codes) >= 0x80:
            self._counts["refused_by_broker"] += sum(code >= 0x80 for code in reason_codes)
        receipts: list[Receipt] = []
        for held in group.inputs:
            held.waiting -= 1
            if not held.waiting:
                held.done = True
                if held.receipt is not None:
                    receipts.append(held.receipt)
        if receipts:
            self._broker.acknowledge(receipts)

    def confirmed(self, connection: int, acknowledged: int) -> dict[str, list[str]]:
        """The broker has seen the PUBACKs up to number ``acknowledged`` of ``connection``.

        Inputs of an earlier connection that were not delivered again by now were seen as acknowledged.

        Returns:
            Organization -> journal entries that may be deleted.
        """
        entries: dict[str, list[str]] = {}
        while self._groups and _is_over(self._groups[0], connection, acknowledged):
            group = self._groups.popleft()
            for held in group.inputs:
                known = self._held.pop(held.packet_id, None)
                if known is not held and known is not None:
                    self._held[held.packet_id] = known  # the id has come round
            if group.entry is not None:
                entries.setdefault(group.organization, []).append(group.entry)
        return entries


def _is_over(group: Group, connection: int, acknowledged: int) -> bool:
    if not group.delivered:
        return False
    for held in group.inputs:
        receipt = held.receipt
        if not held.done:
            return False
        if receipt is not None and receipt.number > acknowledged and receipt.connection == connection:
            return False
    return True
