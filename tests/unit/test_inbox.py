"""The inbox: order, bounds, and what one of several equal messages may stand for."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import inbox as inbox_module
from bridge.domain.values import Receipt
from bridge.inbox import Arrival, Confirmed, Connected, Inbox, Sweep
from tests.unit.world import input_of, message


def arrival(topic: str, payload: object = b"", number: int | None = None, response_topic: str | None = None) -> Arrival:
    inbound = input_of(message(topic, payload, response_topic=response_topic))
    return inbound, None if number is None else Receipt(1, number, number)


def receive(inbox: Inbox, arrivals: list[Arrival], size_bytes: int = 1000) -> None:
    inbox.received(arrivals, size_bytes)


def topics(taken: object) -> list[str]:
    assert isinstance(taken, list)
    return [inbound.topic for inbound, _ in taken]


def test_arrivals_and_marks_leave_in_order() -> None:
    inbox = Inbox(Counter())
    inbox.connected(1, True)
    receive(inbox, [arrival("a", "1", 1), arrival("b", "1", 2)])
    inbox.confirmed(1, 2, True)
    receive(inbox, [arrival("c", "1", 3)])
    inbox.put(Sweep())
    assert inbox.take(10) == Connected(1, True)
    assert topics(inbox.take(10)) == ["a", "b"]
    assert inbox.take(10) == Confirmed(1, 2)
    assert topics(inbox.take(10)) == ["c"]
    assert inbox.take(10) == Sweep()
    assert inbox.take(10) == []


def test_a_batch_is_bounded() -> None:
    inbox = Inbox(Counter())
    receive(inbox, [arrival(str(number), "x", number) for number in range(1, 6)])
    assert [topics(inbox.take(2)) for _ in range(3)] == [["1", "2"], ["3", "4"], ["5"]]


def test_of_several_confirmations_in_a_row_the_newest_counts() -> None:
    inbox = Inbox(Counter())
    inbox.confirmed(1, 1, True)
    inbox.confirmed(1, 5, True)
    receive(inbox, [arrival("a", "1", 6)])
    inbox.confirmed(1, 6, True)
    assert inbox.take(10) == Confirmed(1, 5)
    assert topics(inbox.take(10)) == ["a"]
    assert inbox.take(10) == Confirmed(1, 6)


def test_keepalives_at_qos_0_coalesce_while_they_wait() -> None:
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    receive(inbox, [arrival("e1"), arrival("e2"), arrival("e1")])
    receive(inbox, [arrival("e1")])
    assert topics(inbox.take(10)) == ["e1", "e2"]
    assert counts["coalesced"] == 2
    assert counts["received"] == 4
    receive(inbox, [arrival("e1")])
    assert topics(inbox.take(10)) == ["e1"]


def test_what_brings_something_or_wants_an_answer_or_is_owed_an_acknowledgement_never_coalesces() -> None:
    inbox = Inbox(Counter())
    receive(inbox, [arrival("t", "x"), arrival("t", "x")])
    receive(inbox, [arrival("t", number=1), arrival("t", number=2)])
    receive(inbox, [arrival("t", response_topic="replies/x"), arrival("t", response_topic="replies/x")])
    assert len(inbox.take(10)) == 6


def test_beyond_the_limit_the_newest_at_qos_0_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0", 2)
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    receive(inbox, [*(arrival(topic, "x") for topic in "abc"), arrival("q", "x", 1)])
    assert counts["dropped_qos0"] == 1
    assert topics(inbox.take(10)) == ["a", "b", "q"]
    receive(inbox, [arrival("c", "x")])  # dropped once is not dropped for good
    assert topics(inbox.take(10)) == ["c"]


def test_no_flood_takes_the_places_of_keepalives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0", 2)
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0_BYTES", 5000)
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    receive(inbox, [arrival("junk", "x")] * 10, 10_000)
    receive(inbox, [arrival("e1"), arrival("e2"), arrival("e1"), arrival("e3")])
    assert topics(inbox.take(10)) == ["junk", "junk", "e1", "e2"]
    assert (counts["coalesced"], counts["dropped_qos0"]) == (1, 9)
    receive(inbox, [arrival("e3")])
    assert topics(inbox.take(10)) == ["e3"]


def test_many_bytes_leave_no_room_at_qos_0_and_more_of_them_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0_BYTES", 5000)
    monkeypatch.setattr(inbox_module, "MAXIMUM_BYTES", 8000)
    counts: Counter[str] = Counter()
    inbox = Inbox(counts)
    receive(inbox, [arrival("a", "x")], 6000)
    receive(inbox, [arrival("b", "x")], 1000)
    assert (counts["dropped_qos0"], inbox.has_room) == (1, True)
    receive(inbox, [arrival("q", "x", 1)], 2000)
    assert not inbox.has_room
    assert topics(inbox.take(1)) == ["a"]
    assert inbox.has_room


def test_many_messages_leave_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_WAITING", 3)
    inbox = Inbox(Counter())
    receive(inbox, [arrival("q", "x", number) for number in range(1, 4)])
    assert not inbox.has_room
    inbox.take(1)
    assert inbox.has_room


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 1000)), max_size=30))
def test_what_is_taken_gives_its_room_back(story: list[tuple[int, int, int]]) -> None:
    inbox = Inbox(Counter())
    for count, taken, size_bytes in story:
        if count:
            receive(inbox, [arrival("q", "x", number + 1) for number in range(count)], size_bytes)
        before = inbox._bytes
        inbox.take(taken)
        assert 0 <= inbox._bytes <= before
    inbox.take(1000)
    assert inbox._bytes == 0
    assert not inbox._reads


def test_what_was_dropped_is_said_once_with_the_next_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAXIMUM_QOS0", 1)
    inbox = Inbox(Counter())
    receive(inbox, [arrival("a"), arrival("b")])
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
    for wake in (lambda: receive(inbox, [arrival("a", "x")]), lambda: inbox.put(Sweep()), inbox.wake):
        waiting = asyncio.create_task(inbox.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        wake()
        await asyncio.wait_for(waiting, 1)
        inbox.take(10)
    receive(inbox, [arrival("a", "x")])
    await asyncio.wait_for(inbox.wait(), 1)
