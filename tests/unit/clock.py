"""The running event loop's clock, put forward by hand: what waits for long is tested in no time."""

import asyncio

import pytest


class Clock:
    """``ahead_seconds`` is how far the clock of the running loop is put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self.ahead_seconds = 0.0
        monkeypatch.setattr(loop, "time", self.time)

    def time(self) -> float:
        """The loop's time in seconds."""
        return self._time() + self.ahead_seconds
