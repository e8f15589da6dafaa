"""A journal entry reads back as it was written, and anything else is a decode error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.journal import JournalEntry, copies, decode_entry, encode_entry
from bridge.domain.values import Output

outputs = st.builds(
    Output,
    topic=st.text(max_size=20),
    payload=st.binary(max_size=50),
    qos=st.integers(0, 1),
    event_id=st.text(max_size=10),
    correlation=st.none() | st.binary(max_size=10),
    redelivered=st.booleans(),
    retain=st.booleans(),
    expiry_seconds=st.integers(0, 2**32 - 1),
)
entries = st.builds(
    JournalEntry,
    session_epoch=st.text(max_size=10),
    inputs=st.lists(st.tuples(st.integers(1, 65_535), st.integers(0, 2**32 - 1)), max_size=5),
    outputs=st.lists(outputs, max_size=5),
)


@given(entries)
def test_an_entry_reads_back(entry: JournalEntry) -> None:
    assert decode_entry(encode_entry(entry)) == entry


@given(entries, st.integers(0, 200))
def test_every_cut_of_an_entry_is_refused_alike(entry: JournalEntry, length: int) -> None:
    batch = encode_entry(entry)
    if length < len(batch):
        with pytest.raises(msgspec.DecodeError):
            decode_entry(batch[:length])


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_an_entry(batch: bytes) -> None:
    try:
        entry = decode_entry(batch)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert isinstance(entry, JournalEntry)


def test_an_entry_of_an_earlier_bridge_reads_as_it_was_meant() -> None:
    batch = msgspec.msgpack.encode(["epoch", [[7, 9]], [["users/endpoints/e1", b"{}", 1, "id1"]]])
    assert decode_entry(batch) == JournalEntry("epoch", [(7, 9)], [Output("users/endpoints/e1", b"{}", 1, "id1")])


def test_copies_are_marked_and_carry_the_time_that_is_left() -> None:
    outputs = [Output(str(seconds), b"{}", 1, "e", expiry_seconds=seconds) for seconds in (0, 9, 10, 11, 60)]
    again = copies("1700000000000-3", JournalEntry("epoch", [], outputs), 1_700_000_009_500)
    assert [(output.topic, output.expiry_seconds) for output in again] == [("0", 0), ("10", 1), ("11", 2), ("60", 51)]
    assert all(output.redelivered for output in again)
