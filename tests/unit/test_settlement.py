"""Settlement: who waits for what, until nothing is owed."""

from collections import Counter

import pytest

from bridge.domain.values import Receipt
from bridge.settlement import Held, Settlement
from tests.unit.world import FakeBroker


class Owing:
    """A settlement and the broker that it acknowledges to."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.counts: Counter[str] = Counter()
        self.settlement = Settlement(self.broker, self.counts)

    def arrive(self, packet_id: int, *, number: int | None = None, connection: int = 1, digest: int = 9) -> Held:
        held = self.settlement.hold(Receipt(connection, number or packet_id, packet_id), digest, False)
        assert held is not None
        return held

    def copy(self, packet_id: int, number: int, *, connection: int = 2, digest: int = 9) -> Held | None:
        return self.settlement.hold(Receipt(connection, number, packet_id), digest, True)

    @property
    def acknowledged(self) -> list[tuple[int, int]]:
        return [(receipt.connection, receipt.packet_id) for receipt in self.broker.acknowledged]


def test_the_inputs_of_a_commit_are_acknowledged_when_its_outputs_are() -> None:
    owing = Owing()
    group = owing.settlement.group("default", "1-1", [owing.arrive(1), owing.arrive(2)])
    assert (owing.acknowledged, owing.settlement.undelivered) == ([], 1)
    group.settled([0, 0x10])
    assert (owing.acknowledged, owing.settlement.undelivered) == ([(1, 1), (1, 2)], 0)
    assert owing.counts["refused_by_broker"] == 0


def test_refused_outputs_settle_and_are_counted() -> None:
    owing = Owing()
    owing.settlement.group("default", None, [owing.arrive(1)]).settled([0x80, 0x87, 0x10, 0])
    assert owing.acknowledged == [(1, 1)]
    assert owing.counts["refused_by_broker"] == 2


def test_an_input_of_several_commits_waits_for_all_of_them() -> None:
    owing = Owing()
    held = owing.arrive(1)
    held.waiting += 1
    first = owing.settlement.group("default", "1-1", [held])
    second = owing.settlement.group("default", "1-2", [held])
    second.settled([])
    assert owing.acknowledged == []
    first.settled([])
    assert owing.acknowledged == [(1, 1)]


def test_an_entry_may_go_once_the_broker_has_seen_all_pubacks_of_its_inputs() -> None:
    owing = Owing()
    owing.settlement.group("a", "1-1", [owing.arrive(1)]).settled([])
    owing.settlement.group("b", "2-1", [owing.arrive(2)]).settled([])
    owing.settlement.group("a", None, []).settled([])
    assert owing.settlement.confirmed(1, 0) == {}
    assert owing.settlement.confirmed(1, 1) == {"a": ["1-1"]}
    assert owing.settlement.confirmed(1, 9) == {"b": ["2-1"]}
    assert not owing.settlement.is_journaled


def test_an_entry_waits_for_its_outputs_whatever_is_confirmed() -> None:
    owing = Owing()
    group = owing.settlement.group("a", "1-1", [owing.arrive(1)])
    assert owing.settlement.confirmed(1, 9) == {}
    group.settled([])
    assert owing.settlement.confirmed(1, 9) == {"a": ["1-1"]}


def test_a_copy_joins_until_the_entry_is_deleted() -> None:
    owing = Owing()
    group = owing.settlement.group("a", "1-1", [owing.arrive(7)])
    assert owing.copy(7, 1) is None  # in the line
    assert owing.acknowledged == []
    group.settled([])
    assert owing.acknowledged == [(2, 7)]  # the latest delivery is answered
    assert owing.copy(7, 1, connection=3) is None  # delivered
    assert owing.acknowledged == [(2, 7), (3, 7)]
    assert owing.settlement.confirmed(3, 0) == {}
    assert owing.settlement.confirmed(3, 1) == {"a": ["1-1"]}
    assert owing.copy(7, 2, connection=3) is not None  # forgotten
    assert owing.counts["joined"] == 2


@pytest.mark.parametrize(("packet_id", "digest", "duplicate"), [(7, 9, False), (7, 8, True), (8, 9, True)])
def test_everything_else_is_a_new_message(packet_id: int, digest: int, duplicate: bool) -> None:
    owing = Owing()
    owing.arrive(7)
    assert owing.settlement.hold(Receipt(1, 2, packet_id), digest, duplicate) is not None


def test_the_end_of_an_older_message_does_not_forget_a_newer_one_of_the_same_packet_id() -> None:
    owing = Owing()
    owing.settlement.group("a", "1-1", [owing.arrive(7)]).settled([])
    newer = owing.arrive(7, number=8)
    assert owing.settlement.confirmed(1, 7) == {"a": ["1-1"]}
    assert owing.copy(7, 1) is None
    assert newer.receipt is not None
    assert newer.receipt.connection == 2


def test_on_a_new_connection_what_is_not_delivered_again_was_seen() -> None:
    owing = Owing()
    owing.settlement.group("a", "1-1", [owing.arrive(1)]).settled([])
    owing.settlement.group("a", "1-2", [owing.arrive(2)]).settled([])
    owing.copy(2, 1)
    assert owing.settlement.confirmed(2, 0) == {"a": ["1-1"]}
    assert owing.settlement.confirmed(2, 1) == {"a": ["1-2"]}


def test_recovered_inputs_join_their_copies() -> None:
    owing = Owing()
    held = owing.settlement.recovered([(7, 9), (8, 9)])
    group = owing.settlement.group("a", "1-1", held)
    assert owing.copy(7, 1) is None
    group.settled([0])
    assert owing.acknowledged == [(2, 7)]
    assert owing.settlement.confirmed(2, 0) == {}
    assert owing.settlement.confirmed(2, 1) == {"a": ["1-1"]}
    assert owing.copy(8, 2) is not None


def test_a_lost_session_ends_every_identity() -> None:
    owing = Owing()
    group = owing.settlement.group("a", "1-1", [owing.arrive(7)])
    owing.settlement.forget_session()
    assert owing.copy(7, 1) is not None
    group.settled([])
    assert owing.settlement.confirmed(2, 0) == {"a": ["1-1"]}
