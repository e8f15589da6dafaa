"""The inbox: order, bounds, and what one of several equal messages may stand for."""

import asyncio
from collections import Counter

import pytest

from bridge import inbox as inbox_module
from bridge.domain.values import Receipt
from bridge.inbox import Arrival, Confirmed, Connected, Inbox, Sweep
from tests.unit.world import input_of, message


def arrival(topic: str, payload: object = b"", number: int | None = None, response_topic: str | None = None) -> Arrival:
    inbound = input_of(message(topic, payload, response_topic=response_topic))
    return inbound, None if number is None else Receipt(1, number, number)


def topics(taken: object) -> list[str]:
    assert isinstance(taken, list)
    return [inbound.topic for inbound, _ in taken]


def test_arrivals_and_marks_leave_in_order() -> None:
    inbox = Inbox(Counter())
    inbox.connected(1, True)
    inbox.received([arrival("a", "1", 1), arrival("b", "1", 2)])
    inbox.confirmed(1, 2, True)
    inbox.received([arrival("c", "1", 3)])
    inbox.put(Sweep())
    assert inbox.take(10) == Connected(1, True)
    assert topics(inbox.take(10)) == ["a", "b"]
    assert inbox.take(10) == Confirmed(1, 2)
    assert topics(inbox.take(10)) == ["c"]
    assert inbox.take(10) == Sweep()
    assert inbox.take(10) == []


def test_a_batch_is_bounded() -> None:
    inbox = Inbox(Counter())
    inbox.received([arrival(str(number), "x", number) for number in range(1, 6)])
    assert [topics(inbox.take(2)) for _ in range(3)] == [["1", "2"], ["3", "4"], ["5"]]


def test_of_several_confirmations_in_a_row_the_newest_counts() -> None:
    inbox = Inbox(Counter())
    inbox.confirmed(1, 1, True)
    inbox.confirmed(1, 5, True)
    inbox.received([arrival("a", "1", 6)])
    inbox.confirmed(1, 6, True)
    assert inbox.take(10) == Confirmed(1, 5)
    assert topics(inbox.take(10)) == ["a"]
    assert inbox.take(10) == Confirmed(1, 6)


def test_keepalives_at_qos_0_coalesce_while_they_wait() -> None:
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    inbox.received([arrival("e1"), arrival("e2"), arrival("e1")])
    inbox.received([arrival("e1")])
    assert topics(inbox.take(10)) == ["e1", "e2"]
    assert counts["coalesced"] == 2
    assert counts["received"] == 4
    inbox.received([arrival("e1")])
    assert topics(inbox.take(10)) == ["e1"]


def test_what_brings_something_or_wants_an_answer_or_is_owed_an_acknowledgement_never_coalesces() -> None:
    inbox = Inbox(Counter())
    inbox.received([arrival("t", "x"), arrival("t", "x")])
    inbox.received([arrival("t", number=1), arrival("t", number=2)])
    inbox.received([arrival("t", response_topic="replies/x"), arrival("t", response_topic="replies/x")])
    assert len(inbox.take(10)) == 6


def test_beyond_the_limit_the_newest_at_qos_0_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0", 2)
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    inbox.received([arrival("a"), arrival("b", "x"), arrival("c"), arrival("d", "x"), arrival("q", "x", 1)])
    assert counts["dropped_qos0"] == 2
    assert topics(inbox.take(10)) == ["a", "b", "q"]
    inbox.received([arrival("c")])  # dropped once is not dropped for good
    assert topics(inbox.take(10)) == ["c"]


def test_what_was_dropped_is_said_once_with_the_next_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0", 1)
    inbox = Inbox(Counter())
    inbox.received([arrival("a"), arrival("b")])
    inbox.take(10)
    inbox.confirmed(1, 0, True)
    inbox.confirmed(1, 0, False)
    assert inbox.take(10) == Confirmed(1, 0, caught_up=False, lost=True)
    inbox.confirmed(1, 0, True)
    assert inbox.take(10) == Confirmed(1, 0, caught_up=True, lost=False)


def test_subscribed_until_disconnected() -> None:
    inbox = Inbox(Counter())
    assert not inbox.is_subscribed
    inbox.subscribed(1)
    assert inbox.is_subscribed
    inbox.disconnected(1, "gone")
    assert not inbox.is_subscribed


async def test_waiting_ends_with_an_arrival_a_mark_or_a_wake() -> None:
    inbox = Inbox(Counter())
    for wake in (lambda: inbox.received([arrival("a", "x")]), lambda: inbox.put(Sweep()), inbox.wake):
        waiting = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        wake()
        await asyncio.wait_for(waiting, 1)
        inbox.take(10)
    inbox.received([arrival("a", "x")])
    await asyncio.wait_for(inbox.wait(), 1)
