"""What a batch has loaded: absent, unreadable and known records."""

import pytest

from bridge.domain.loaded import CorruptRecord
from bridge.domain.records import EMPTY_SUBJECT, Watchers
from tests.unit.domain.test_state import ANN, BOB, state


def test_an_absent_record_is_the_empty_one() -> None:
    made = state({"session:s": None, "watchers": None})
    assert made.subject("user", "ann") is EMPTY_SUBJECT
    assert made.session("s").members == {}
    assert made.watchers().names == {}
    assert not made.is_known(ANN)


@pytest.mark.parametrize(
    "stored",
    [b"", b"5", b"5:1", b"5:1:", b"5:1:[]", b"5:2:{}", b"x:1:{}", b'5:1:{"connections":1}', b"5:1:\xff", b"5::{}"],
)
def test_what_cannot_be_read_is_corrupt_and_is_empty_where_only_read_along(stored: bytes) -> None:
    made = state({BOB: stored})
    with pytest.raises(CorruptRecord) as corrupt:
        made.subject("user", "bob")
    assert corrupt.value.key == BOB
    assert made.readable(BOB) is EMPTY_SUBJECT


def test_a_key_of_another_type_is_corrupt_from_the_second_look_on() -> None:
    with pytest.raises(CorruptRecord):
        state({BOB: None}, corrupt=[BOB]).subject("user", "bob")


def test_to_be_watched_alone_is_not_to_be_known() -> None:
    made = state({BOB: b'5:1:{"watchers":{"e":"user:ann"}}', "watchers": b'5:1:{"names":{"*":{"e":"user:ann"}}}'})
    assert not made.is_known(BOB)
    assert made.watchers() == Watchers({"*": {"e": "user:ann"}})
