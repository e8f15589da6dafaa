"""From the unit of work to the commit: what is written, checked, indexed and filed."""

import zlib
from typing import Any

import msgspec
import pytest

from bridge.domain.changes import commit_of, due_ms
from bridge.domain.records import (
    EMPTY_SUBJECT,
    Connection,
    Endpoint,
    Pending,
    Record,
    Session,
    Subject,
    Watchers,
)
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.domain.values import Loaded, Moment

NOW = 1_700_000_000_000
ANN = "user:ann"
ONLINE = Subject(connections={"": Connection(1, 1000)})
BUSY = Subject(sessions={"s": 5})


def state(stored: Record | None = None, version: int = 7, rules: Rules | None = None, resumed_ms: int = 0) -> State:
    made = State(
        "default",
        Moment(NOW, 5000, resumed_ms),
        rules or Rules(),
        home="default",
        id_prefix="p",
        id_suffix="s",
        timestamp="t",
        told_ms={},
    )
    text = None if stored is None else b"%d:1:%b" % (version, msgspec.json.encode(stored))
    made.add(Loaded({ANN: text, "session:s": None}, {}, 3), {})
    made.entry(ANN)
    return made


def commit(stored: Record | None, record: Record, **rest: Any) -> Any:
    made = state(stored, **rest)
    made.save(ANN, record)
    made.keep()
    return commit_of(made, "t1")


def test_what_is_only_read_is_checked() -> None:
    made = state(ONLINE)
    made.entry("session:s")
    found = commit_of(made, "t1")
    assert (found.writes, found.checks, found.members, found.deadlines, found.floor) == (
        *([], {ANN: 7, "session:s": 0}, {}, {}, 0),
    )


def test_a_new_record_expects_none_and_is_readable_text() -> None:
    found = commit(None, ONLINE)
    [write] = found.writes
    assert (write.key, write.expected) == (ANN, 0)
    assert write.text == b'%d:1:{"connections":{"":[1,1000]}}' % NOW
    assert found.members == {"online:user": {"ann": True}}
    assert found.checks == {}


def test_a_changed_record_expects_its_version() -> None:
    found = commit(ONLINE, BUSY)
    assert found.writes[0].expected == 7
    assert found.members == {"online:user": {"ann": False}, "busy:user": {"ann": True}}


def test_an_emptied_record_is_deleted_and_raises_the_floor() -> None:
    found = commit(ONLINE, EMPTY_SUBJECT)
    assert (found.writes[0].expected, found.writes[0].text) == (7, None)
    assert found.floor == NOW
    assert found.members == {"online:user": {"ann": False}}


def test_a_record_that_came_and_went_within_a_batch_raises_the_floor_too() -> None:
    made = state(None)
    made.save(ANN, ONLINE)
    made.keep()
    made.save(ANN, Subject())
    made.keep()
    found = commit_of(made, "t1")
    assert (found.writes, found.checks, found.members) == ([], {ANN: 0}, {})
    assert found.floor == NOW + 1


def test_ids_stand_in_the_indexes_as_they_are() -> None:
    made = state()
    made.add(Loaded({"device:a%3Ab": None}, {}, 0), {})
    made.save("device:a%3Ab", ONLINE)
    made.keep()
    assert commit_of(made, "t").members == {"online:device": {"a:b": True}}


def test_whoever_has_an_endpoint_has_a_deadline_and_stands_in_no_index() -> None:
    """So the deadlines name all whom an event for the whole organization concerns."""
    endpoint = Endpoint(60, 1000, 1)
    made = commit(None, Subject(endpoints={"a": endpoint, "b": endpoint}))
    assert made.members == {}
    assert made.deadlines == {ANN: 61_000}
    before = Subject(endpoints={"a": endpoint})
    assert commit(before, Subject(endpoints={"b": endpoint})).deadlines == {}  # it stands there already
    assert commit(before, Subject(sessions={"s": 1})).deadlines == {ANN: None}


def test_deadlines_are_filed_where_they_move_or_are_asked_for() -> None:
    endpoint = Endpoint(60, 1000, 1)
    with_endpoint = Subject(endpoints={"e": endpoint})
    assert commit(None, with_endpoint).deadlines == {ANN: 61_000}
    assert commit(with_endpoint, Subject(endpoints={"e": endpoint}, sessions={"s": 1})).deadlines == {}
    assert commit(with_endpoint, EMPTY_SUBJECT).deadlines == {ANN: None}
    made = state(with_endpoint)
    made.touch(ANN)
    made.keep()
    assert commit_of(made, "t").deadlines == {ANN: 61_000}
    made = state()
    made.unfile("user:bad")
    made.keep()
    assert commit_of(made, "t").deadlines == {"user:bad": None}


@pytest.mark.parametrize(
    ("record", "resumed_ms", "due"),
    [
        (Subject(), 0, None),
        (ONLINE, 0, 31_000),
        (ONLINE, 5000, 35_000 + zlib.crc32(b"user:ann/") % 3001),
        (Subject(endpoints={"a": Endpoint(60, 1000, 1), "b": Endpoint(50, 2000, 1)}), 0, 52_000),
        (Session(), 0, None),
        (Session(members={ANN: 1}, renewed_ms=1000), 0, 12 * 3_600_000 + 1000),
        (Session(members={ANN: 1}, renewed_ms=1000), 9000, 12 * 3_600_000 + 9000 + zlib.crc32(b"ann") % 4_320_001),
        (Session(members={ANN: 1}, renewed_ms=1000, stopped_ms=5, forget_ms=10), 0, 12 * 3_600_000 + 1000),
        (Session(stopped_ms=5, forget_ms=10), 0, 10),
        (Session(pending=Pending([ANN], "expired")), 0, 0),
        (Watchers({"*": {"e": ANN}}), 0, None),
    ],
)
def test_when_a_record_is_due(record: Record, resumed_ms: int, due: int | None) -> None:
    assert due_ms(ANN, record, Rules(lease_ms=30_000), resumed_ms) == due


def test_connections_are_due_only_where_a_lease_is_set() -> None:
    assert due_ms(ANN, ONLINE, Rules(), 0) is None
