"""The unit of work: overlays, versions, and what is not loaded."""

from typing import Any

import pytest

from bridge.domain.loaded import NotLoaded
from bridge.domain.records import EMPTY_SUBJECT, Connection, Subject
from bridge.domain.rules import Rules
from bridge.domain.state import CommitFirst, State
from bridge.domain.values import Claim, Loaded, Moment, Owner, Page

NOW = 1_700_000_000_000
ANN, BOB = "user:ann", "user:bob"


def state(records: dict[str, bytes | None] | None = None, *, floor: int = 0, **rest: Any) -> State:
    made = State(
        "default",
        Moment(NOW, 5000, 0),
        Rules(),
        home="default",
        id_prefix="p",
        id_suffix="-i1",
        timestamp="t",
        told_ms=rest.pop("told_ms", {}),
        **rest,
    )
    made.add(Loaded({ANN: None, **(records or {})}, {}, floor), {})
    return made


SOME = Subject(connections={"c": Connection(1, 1)})


def test_what_is_not_loaded_is_asked_for() -> None:
    with pytest.raises(NotLoaded) as missing:
        state().subject("user", "bob")
    assert missing.value.keys == (BOB,)
    with pytest.raises(NotLoaded) as missing:
        state().require([ANN, BOB, "user:cat"], ["e1"])
    assert (missing.value.keys, missing.value.owners) == ((BOB, "user:cat"), ("e1",))
    with pytest.raises(NotLoaded) as missing:
        state().owner("e1")
    assert missing.value.owners == ("e1",)
    page = Page("online:user", "", 5)
    with pytest.raises(NotLoaded) as missing:
        state().page(page)
    assert missing.value.pages == (page,)
    with pytest.raises(NotLoaded) as missing:
        state().owned_subject(Owner("acme", "user", "x", 1))
    assert missing.value.foreign == ("acme", "user:x")


def test_a_dropped_command_leaves_no_trace() -> None:
    made = state({BOB: None})
    made.owners["e1"] = None
    made.save(ANN, SOME)
    made.claim("e1", Owner("default", "user", "ann", NOW))
    made.go_on(ANN)
    made.touch(ANN)
    assert made.is_first_telling("gone", 10_000)
    made.drop()
    assert made.subject("user", "ann") is EMPTY_SUBJECT
    assert made.keep() is False
    assert (made.claims, made.unfinished, made.touched, made.told) == ({}, [], set(), {})
    assert made.owner("e1") is None


def test_kept_commands_add_up() -> None:
    made = state()
    made.save(ANN, SOME)
    assert made.subject("user", "ann") is SOME  # its own changes are seen at once
    assert made.keep() is True
    assert made.entry(ANN).record is SOME
    assert made.entry(ANN).loaded is EMPTY_SUBJECT
    assert made.keep() is False


def test_versions_rise_within_a_batch_above_the_record_and_above_the_floor() -> None:
    made = state()
    assert [made.save(ANN, SOME), made.save(ANN, EMPTY_SUBJECT), made.save(ANN, SOME)] == [NOW, NOW + 1, NOW + 2]
    assert state(floor=NOW + 50).save(ANN, SOME) == NOW + 51
    assert state({ANN: b"%d:1:{}" % (NOW + 9)}, floor=NOW + 50).save(ANN, SOME) == NOW + 10
    assert state({ANN: b"5:1:{}"}).save(ANN, SOME) == NOW
    fresh = state(floor=NOW + 50)
    assert fresh.version(ANN) == NOW + 51  # what it would start with
    assert state({ANN: b"5:1:{}"}).version(ANN) == 5


def test_an_index_is_not_read_over_changes_that_are_not_committed() -> None:
    made = state()
    page = Page("online:user", "", 5)
    made.add(Loaded({}, {page: ["x"]}, 0), {})
    assert made.page(page) == ["x"]
    made.save(ANN, SOME)
    made.keep()
    with pytest.raises(CommitFirst):
        made.page(page)


def test_claims_of_one_batch_are_one_change_each() -> None:
    made = state()
    ann, bob = Owner("default", "user", "ann", 1), Owner("default", "user", "bob", NOW)
    made.owners["e1"] = ann
    made.claim("e1", None)
    made.keep()
    assert made.owner("e1") is None
    made.claim("e1", bob)
    made.keep()
    assert made.claims == {"e1": Claim("e1", ann, bob)}


def test_telling_is_limited_within_a_batch_and_over_batches() -> None:
    told_ms = {("default", "late"): NOW - 9_999, ("default", "long"): NOW - 10_000, ("acme", "other"): NOW}
    made = state(told_ms=told_ms)
    assert not made.is_first_telling("late", 10_000)
    assert made.is_first_telling("long", 10_000)
    assert made.is_first_telling("other", 10_000)  # another organization's question is not this one's
    made.keep()
    assert not made.is_first_telling("long", 10_000)


def test_event_ids_rise_and_name_batch_and_bridge() -> None:
    made = state()
    stamps = [made.stamp("user/ann", 5) for _ in range(300)]
    ids = [stamp[0] for stamp in stamps]
    assert ids == sorted(set(ids))
    assert ids[0] == "p000001-i1"
    assert stamps[0][1:] == ("t", "default", "user/ann", 5)


def test_a_window_is_named_where_all_was_loaded_in_it() -> None:
    made = state()
    assert made.window == 0
    for windows, whole in (((7,), 7), ((7, 7), 7), ((7, 8), 0), ((7, 8, 8), 0), ((0, 7), 0)):
        made = State(
            "default", Moment(NOW, 5000, 0), Rules(), home="", id_prefix="", id_suffix="", timestamp="", told_ms={}
        )
        for window in windows:
            made.add(Loaded({}, {}, 0), {}, window)
        assert made.window == whole
