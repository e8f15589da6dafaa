"""The bridge as a process that dies or stops at a named step, or runs without one of its guards.

``--die-at STEP:N`` kills the process (SIGKILL, by itself) when it comes to a step for the Nth time, ``--stop-at``
stops it in order there (SIGTERM). ``--without GUARD`` takes a guard out, to show that a schedule of faults notices.
Everything after these goes to ``endpoint-bridge``. The bridge itself knows nothing of this: its methods are wrapped
from outside.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bridge import cli
from bridge.adapters.mqtt.session import Session
from bridge.adapters.registry import RedisRegistry
from bridge.batch import Part
from bridge.domain.values import Hold, Receipt
from bridge.pipeline import Line
from bridge.settlement import Settlement

_Wrap = Callable[[Callable[[], None]], None]


def _after(owner: type, name: str, step: Callable[[], None], *, is_it: Callable[[Any, Any], bool]) -> None:
    """Come to a step whenever a coroutine method returned and ``is_it(self, result)``."""
    method = getattr(owner, name)

    async def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await method(self, *args, **kwargs)
        if is_it(self, result):
            step()
        return result

    setattr(owner, name, wrapped)


def _loaded(step: Callable[[], None]) -> None:
    _after(Line, "_load", step, is_it=lambda *_: True)


def _committed(step: Callable[[], None]) -> None:
    _after(RedisRegistry, "commit", step, is_it=lambda *_: True)


def _published(step: Callable[[], None]) -> None:
    flush = Session._flush

    def flushed(self: Session) -> None:
        flush(self)
        if self._outbox.waiting == 0:
            step()

    Session._flush = flushed  # type: ignore[method-assign]


def _acknowledging(step: Callable[[], None]) -> None:
    acknowledge = Session.acknowledge

    def before(self: Session, receipts: Any) -> None:
        step()
        acknowledge(self, receipts)

    Session.acknowledge = before  # type: ignore[method-assign]


def _sweeping(step: Callable[[], None]) -> None:
    _after(RedisRegistry, "due", step, is_it=lambda _, due: bool(due))


def _recovering(step: Callable[[], None]) -> None:
    _after(Line, "_connected", step, is_it=lambda line, _: line._counts["redelivered"] > 0)


def _starting(step: Callable[[], None]) -> None:
    _after(RedisRegistry, "fence", step, is_it=lambda *_: True)


STEPS: dict[str, _Wrap] = {
    "loaded": _loaded,
    "committed": _committed,
    "published": _published,
    "acknowledging": _acknowledging,
    "sweeping": _sweeping,
    "recovering": _recovering,
    "starting": _starting,
}


def _without_ack_after_publish() -> None:
    """Inputs are acknowledged when they arrive."""
    hold = Settlement.hold

    def held(self: Settlement, receipt: Receipt, digest: int, is_duplicate: bool) -> Any:
        self._broker.acknowledge((receipt,))
        return hold(self, receipt, digest, is_duplicate)

    Settlement.hold = held  # type: ignore[method-assign]


def _without_journal() -> None:
    """Outputs are not kept with the commit, nor are the identities of its inputs."""
    inputs = Part.inputs
    Part.journaled = lambda self: []  # type: ignore[method-assign]
    Part.inputs = lambda self: (inputs(self)[0], [])  # type: ignore[method-assign]


def _without_dup_recognition() -> None:
    """A copy with DUP is decided again."""
    hold = Settlement.hold
    Settlement.hold = lambda self, receipt, digest, _: hold(self, receipt, digest, False)  # type: ignore[method-assign]


def _without_compare_and_set() -> None:
    """A commit writes over what somebody else wrote since the load."""
    _edit("check", "if start ~= expected then", "if false then")


def _without_outage_clock() -> None:
    """The registry clock runs through every outage."""
    _edit("tick", "gap <= AHEAD_MS", "true")
    _edit("tick", "ARGV[1] == '1'", "false")


def _without_lease() -> None:
    """Every bridge takes itself for the active one, and shuts nobody out."""

    async def hold(self: RedisRegistry, ttl_ms: int, **_: Any) -> Hold:
        return Hold(self._bridge, 1, ttl_ms)

    async def fence(_: RedisRegistry, epoch: int) -> int:
        return epoch

    RedisRegistry.hold = hold  # type: ignore[method-assign, assignment]
    RedisRegistry.fence = fence  # type: ignore[method-assign]


def _edit(name: str, old: str, new: str) -> None:
    """Let a script be read with a line of it changed."""
    read_bytes = Path.read_bytes

    def edited(self: Path) -> bytes:
        text = read_bytes(self)
        if self.name != f"{name}.lua":
            return text
        assert old.encode() in text, f"{self.name} no longer says {old}"
        return text.replace(old.encode(), new.encode())

    Path.read_bytes = edited  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "ack-after-publish": _without_ack_after_publish,
    "journal": _without_journal,
    "dup-recognition": _without_dup_recognition,
    "compare-and-set": _without_compare_and_set,
    "outage-clock": _without_outage_clock,
    "lease": _without_lease,
}


_SIGNALS = {"--die-at": signal.SIGKILL, "--stop-at": signal.SIGTERM}


def main(arguments: Sequence[str]) -> None:
    """Take the bridge's guards out and set its steps up, then run it."""
    rest = list(arguments)
    while rest and rest[0] in ("--without", *_SIGNALS):
        option, value = rest[:2]
        del rest[:2]
        if option == "--without":
            GUARDS[value]()
        else:
            name, _, count = value.partition(":")
            STEPS[name](_nth(int(count), _SIGNALS[option]))
    sys.argv = ["endpoint-bridge", *rest]
    cli.main()


def _nth(count: int, number: int) -> Callable[[], None]:
    left = count

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), number)

    return step


if __name__ == "__main__":
    main(sys.argv[1:])
