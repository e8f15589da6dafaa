"""Recovery: what an ended bridge left in the journal, to be sent again before the first input."""

import msgspec
import structlog

from bridge.domain.journal import JournalEntry, decode_entry
from bridge.ports import Registry

log = structlog.get_logger("bridge.recovery")


async def left_over(registry: Registry) -> list[tuple[str, str, JournalEntry]]:
    """Return (organization, entry id, entry) of every journal entry.

    All of them: whoever asks holds the lease and has shut every earlier bridge out, so nobody else is at work on them.

    An entry that cannot be read is left where it is and named in the log: it is evidence, and nothing waits for it.

    Raises:
        bridge.errors.RegistryUnavailable: Redis is away.
    """
    entries: list[tuple[str, str, JournalEntry]] = []
    for organization, entry_id, _, batch in await registry.journal():
        try:
            entries.append((organization, entry_id, decode_entry(batch)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.error(
                "A journal entry cannot be read: its outputs are lost. Keep it for inspection, or XDEL it.",
                organization=organization,
                entry=entry_id,
                reason=str(error),
            )
    if entries:
        outputs = sum(output.copies for _, _, entry in entries for output in entry.outputs)
        log.info("An earlier run left work in the journal: it is sent again.", entries=len(entries), outputs=outputs)
    return entries
