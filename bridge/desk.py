"""The desk: where callers within this process (HTTP) bring commands to the line, and wait for what comes of them.

It is open while a line works and Redis answers. Nobody waits longer than the time limit, and a command whose caller
has gone before it was decided is not decided any more.
"""

import asyncio

from bridge.domain.commands import Command, KeepEndpoint
from bridge.domain.decide import QUESTIONS
from bridge.domain.room_commands import RefreshParty
from bridge.errors import Refusal
from bridge.inbox import Inbox, Order

# What works while only the broker is away: it tells nobody anything, or what can wait.
WITHOUT_BROKER = QUESTIONS | {KeepEndpoint, RefreshParty}

# Why it is closed.
STARTS = "the bridge starts"
STANDS_BY = "this bridge is not the active one"
REDIS_IS_AWAY = "Redis is away"
STOPS = "the bridge stops"


class Desk:
    """One per process, over all its terms as the active bridge.

    Args:
        timeout_seconds: longest wait for an answer.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._inbox: Inbox | None = None
        self._reason = STARTS
        self._waiters: dict[_Waiter, None] = {}  # in the order in which they asked
        self._timer: asyncio.TimerHandle | None = None  # one for all, since all wait equally long

    # The line's side.

    def open(self, inbox: Inbox) -> None:
        """Take commands from now on, and queue them in ``inbox``."""
        self._inbox = inbox

    def shut(self, reason: str) -> None:
        """Take no more commands; who waits is still answered."""
        self._inbox, self._reason = None, reason

    def close(self, reason: str) -> None:
        """Take no more commands, and send away who waits: nobody can say when there will be an answer."""
        self.shut(reason)
        for waiter in self._waiters:
            waiter.refuse(Refusal("unavailable", f"{reason}: it may have been done; ask again later"))

    # The callers' side.

    async def ask(self, organization: str, command: Command) -> object:
        """Take a command through the line; returns its result, any JSON value, once its effect is committed.

        Raises:
            Refusal: the line's own, or ``unavailable``. That says in its message whether nothing was done or something
                may have been.
        """
        if self._inbox is None:
            raise Refusal("unavailable", f"{self._reason}: nothing was done; ask again later")
        if not self._inbox.is_subscribed and type(command) not in WITHOUT_BROKER:
            raise Refusal("unavailable", "the MQTT broker is away: nothing was done; ask again later")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future(), loop.time() + self._timeout_seconds)
        self._inbox.order(Order(organization, command, waiter))
        self._waiters[waiter] = None
        if self._timer is None:
            self._timer = loop.call_at(waiter.ends_at, self._end_waiting)
        try:
            return await waiter.future
        finally:
            del self._waiters[waiter]

    def _end_waiting(self) -> None:
        """Send away who has waited long enough, and come again for who asked next."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for waiter in self._waiters:
            if waiter.ends_at > loop.time():
                self._timer = loop.call_at(waiter.ends_at, self._end_waiting)
                return
            waiter.refuse(
                Refusal(
                    "unavailable",
                    f"no answer within {self._timeout_seconds:g} s: it may have been done; ask again later",
                )
            )


class _Waiter:
    """Implements `bridge.ports.Waiter` on a future, which is cancelled when its caller gives up.

    ``ends_at`` is when it has waited long enough, on the loop's clock.
    """

    def __init__(self, future: asyncio.Future[object], ends_at: float) -> None:
        self.future = future
        self.ends_at = ends_at

    @property
    def is_open(self) -> bool:
        return not self.future.done()

    def answer(self, result: object) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def refuse(self, refusal: Refusal) -> None:
        if not self.future.done():
            self.future.set_exception(refusal)
