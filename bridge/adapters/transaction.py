"""What a commit asks of Redis: what must hold before the first write (check.lua), and then the writes themselves.

The writes go from the request into the registry as they are, in one MULTI/EXEC: a script would read every byte of them.
"""

from collections.abc import Collection

from bridge.adapters.redis_connection import Script
from bridge.adapters.redis_wire import Command
from bridge.domain.values import Commit, Write

NO_ENTRY, UNNAMED = "-", "?"  # what is kept of a commit besides its token: it had no journal entry, or one


class Transaction:
    """One commit.

    Args:
        commit: what to change.
        prefix: stands before every key of its organization.
        bridge: whose commit it is.
        epoch: with which it commits.
        is_watched: what it depends on was loaded under the watch that still stands, so only what was absent is looked
            at: a key of another type reads as absent.
        absent: record keys that are known to be, and of no other type, under that watch.
    """

    def __init__(
        self,
        commit: Commit,
        prefix: str,
        bridge: str,
        epoch: int,
        is_watched: bool,
        absent: Collection[str] = (),
    ) -> None:
        self._commit = commit
        self._prefix = prefix
        self._bridge = bridge
        self._epoch = epoch
        self._names = [prefix + write.key for write in commit.writes]
        self._expected = [
            (name, _expected(write))
            for name, write in zip(self._names, commit.writes, strict=True)
            if not (is_watched and write.expected)
        ]
        self._expected += (
            (prefix + key, f"={version}" if version else "-")
            for key, version in commit.checks.items()
            if not (is_watched and (version or key in absent))
        )
        self._types = dict.fromkeys([prefix + index for index in commit.members], "zset")
        if commit.deadlines:
            self._types[prefix + "deadlines"] = "zset"
        if commit.journal is not None:
            self._types[prefix + "journal"] = "stream"
        self._keys = [prefix + "bridges", *(name for name, _ in self._expected), *self._types]

    @property
    def depends_on_nothing_else(self) -> bool:
        """Whether there is nothing to look at but what stands under the watch, or is known."""
        return not self._expected and not self._commit.members and not self._commit.unclaimed

    def check(self, script: Script) -> list[Command]:
        """Return what looks whether the changes may be made, and begins them; the script's answer is the last but one.

        MULTI goes with it, since what follows a refused MULTI would be done at once.
        """
        arguments: list[str | int] = [
            f"token:{self._bridge}",
            self._commit.token,
            self._epoch,
            "".join(expected for _, expected in self._expected),
        ]
        arguments += self._types.values()
        return [
            ("WATCH", self._keys[0], *self._types),
            script.call(self._keys, arguments),
            ("MULTI",),
        ]

    def key(self, number: int) -> str:
        """Return the key, relative to the organization, that the script calls by its number."""
        return self._keys[number - 1].removeprefix(self._prefix)

    def changes(self, floor: int) -> list[Command]:
        """Return what follows MULTI; the journal entry, where there is one, is the last change but one.

        Args:
            floor: the organization's present floor, which is only ever raised.
        """
        commit, prefix = self._commit, self._prefix
        commands: list[Command] = []
        written: list[str | bytes] = []
        deleted: list[str] = []
        for name, write in zip(self._names, commit.writes, strict=True):
            if write.text is None:
                deleted.append(name)
            else:
                written += (name, write.text)
        if written:
            commands.append(("MSET", *written))
        if deleted:
            commands.append(("DEL", *deleted))
        _change_set(commands, prefix + "deadlines", commit.deadlines)
        for index, members in commit.members.items():
            _change_set(commands, prefix + index, {member: 0 if is_in else None for member, is_in in members.items()})
        if commit.journal is not None:
            entry = ("bridge", self._bridge, "token", commit.token, "batch", commit.journal)
            commands.append(("XADD", prefix + "journal", "*", *entry))
        kept = f"{commit.token} {NO_ENTRY if commit.journal is None else UNNAMED}"
        raised = ("floor", commit.floor) if commit.floor > floor else ()
        commands.append(("HSET", prefix + "bridges", f"token:{self._bridge}", kept, "epoch", self._epoch, *raised))
        commands.append(("EXEC",))
        return commands


def _expected(write: Write) -> str:
    """Return what is expected of a record, as check.lua reads it."""
    if write.expected:
        return f"={write.expected}"
    return "-" if write.text is None else "+" + write.text.partition(b":")[0].decode()


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
