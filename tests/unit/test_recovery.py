"""Recovery: whose journal entries are taken over, and what becomes of one that cannot be read."""

from bridge.adapters.memory import MemoryRegistry
from bridge.domain.journal import JournalEntry, encode_entry
from bridge.domain.values import Commit, Output
from bridge.recovery import left_over

ENTRY = JournalEntry("epoch", [(7, 9)], [Output("users/endpoints/e1", b"{}", 1, "id1")])


async def journal(*entries: tuple[str, str, bytes]) -> MemoryRegistry:
    registry = MemoryRegistry()
    for number, (organization, bridge, batch) in enumerate(entries):
        registry.bridge = bridge
        await registry.commit(Commit(organization, str(number), journal=batch))
    return registry


async def test_an_empty_journal() -> None:
    assert await left_over(await journal()) == []


async def test_the_entries_of_earlier_runs_in_order_whatever_name_they_had() -> None:
    second = JournalEntry("epoch", [], [])
    registry = await journal(
        ("acme", "north/1", encode_entry(ENTRY)),
        ("acme", "south/1", encode_entry(ENTRY)),
        ("acme", "north/2", encode_entry(second)),
        ("acme", "northern/1", encode_entry(ENTRY)),
        ("beta", "north/1", encode_entry(ENTRY)),
    )
    owed = await left_over(registry)
    assert [(organization, entry) for organization, _, entry in owed] == [
        ("acme", ENTRY),
        ("acme", ENTRY),
        ("acme", second),
        ("acme", ENTRY),
        ("beta", ENTRY),
    ]
    assert [(organization, entry_id) for organization, entry_id, _ in owed] == [
        (organization, entry_id) for organization, entry_id, _, _ in await registry.journal()
    ]


async def test_an_entry_that_cannot_be_read_is_left_and_holds_nothing_up() -> None:
    registry = await journal(
        *(
            ("acme", "north/1", batch)
            for batch in (b"", b"nonsense", b"\xc1", b"\x93\xa1\xff\x90\x90", encode_entry(ENTRY)[:-1])
        ),
        ("acme", "north/1", encode_entry(ENTRY)),
    )
    assert [entry for _, _, entry in await left_over(registry)] == [ENTRY]
    assert len(await registry.journal()) == 6
