"""What a commit asks of Redis: what must hold before the first write (check.lua), and then the writes themselves.

The writes go from the request into the registry as they are, in one MULTI/EXEC: a script would read every byte of them.
"""

from typing import NamedTuple

from bridge.adapters.redis_connection import Command
from bridge.domain.values import Commit

UNNAMED, NO_ENTRY = "?", "-"  # what is kept of a commit besides its token: it has a journal entry, or none


class Expectations(NamedTuple):
    """What must hold, keys relative to the organization.

    Attributes:
        records: keys of the records to write or to check.
        versions: what is expected of each of them, as check.lua reads it.
        types: the other keys that are written -> the type that each must have, where it is there.
    """

    records: list[str]
    versions: str
    types: dict[str, str]


def expectations(commit: Commit) -> Expectations:
    """Return what must hold for a commit."""
    records: list[str] = []
    versions: list[str] = []
    for write in commit.writes:
        records.append(write.key)
        if write.expected:
            versions.append(f"={write.expected}")
        else:
            versions.append("-" if write.text is None else "+" + write.text.partition(b":")[0].decode())
    records += commit.checks
    versions += [f"={expected}" if expected else "-" for expected in commit.checks.values()]
    types = dict.fromkeys((*(["deadlines"] if commit.deadlines else []), *commit.members), "zset")
    if commit.journal is not None:
        types["journal"] = "stream"
    return Expectations(records, "".join(versions), types)


def changes(commit: Commit, prefix: str, bridge: str, epoch: int, floor: int) -> list[Command]:
    """Return what follows MULTI; the journal entry, where there is one, is the last change but one.

    Args:
        commit: what to change.
        prefix: stands before every key.
        bridge: whose commit it is.
        epoch: with which it commits.
        floor: the organization's present floor, which is only ever raised.
    """
    commands: list[Command] = []
    written: list[str | bytes] = []
    deleted: list[str] = []
    for write in commit.writes:
        if write.text is None:
            deleted.append(prefix + write.key)
        else:
            written += (prefix + write.key, write.text)
    if written:
        commands.append(("MSET", *written))
    if deleted:
        commands.append(("DEL", *deleted))
    _change_set(commands, prefix + "deadlines", commit.deadlines)
    for index, members in commit.members.items():
        _change_set(commands, prefix + index, {member: 0 if is_in else None for member, is_in in members.items()})
    if commit.journal is not None:
        entry = ("bridge", bridge, "token", commit.token, "batch", commit.journal)
        commands.append(("XADD", prefix + "journal", "*", *entry))
    kept = f"{commit.token} {NO_ENTRY if commit.journal is None else UNNAMED}"
    raised = ("floor", commit.floor) if commit.floor > floor else ()
    commands.append(("HSET", prefix + "bridges", f"token:{bridge}", kept, "epoch", epoch, *raised))
    commands.append(("EXEC",))
    return commands


def _change_set(commands: list[Command], key: str, scores: dict[str, int | None]) -> None:
    added: list[str | int] = []
    removed: list[str] = []
    for member, score in scores.items():
        if score is None:
            removed.append(member)
        else:
            added += (score, member)
    if added:
        commands.append(("ZADD", key, *added))
    if removed:
        commands.append(("ZREM", key, *removed))
