"""The gate: what holds for every request, whatever it asks for, as plain ASGI around the application.

It bounds bodies, times and numbers, answers a bug with an error, and writes one line of log for each request, which
never holds a query, a body or a token, that of a room neither. Where no token protects the bridge it answers only who
calls this machine by name: a page in a browser that reaches it by a name of its own (DNS rebinding) is not let in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from functools import lru_cache
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import structlog

from bridge.adapters.http.problems import ROOMS, is_of_rooms, problem
from bridge.errors import Refusal, trail
from bridge.settings import Http, is_loopback

log = structlog.get_logger("bridge.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGGED_PATH_LENGTH = 200
MAXIMUM_HELD_BYTES = 64 * 1024 * 1024  # of all bodies in hand


class _Body:
    """What has come of a request's body; ``is_whole`` once it ended, which it does not where its sender went away."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.is_whole = False


class Gate:
    """An ASGI application before the application.

    Args:
        app: the application.
        http: the limits.
        never_full: paths that are answered however many requests are in hand.
        is_open: no token protects the bridge.
    """

    def __init__(
        self,
        app: App,
        http: Http,
        *,
        never_full: Collection[str] = (),
        is_open: bool = False,
    ) -> None:
        self._app = app
        self._http = http
        self._never_full = never_full
        self._is_open = is_open
        self._log = log.bind()  # each look at an unbound one binds it anew
        self._in_hand = 0
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request; anything but HTTP is turned away."""
        if scope["type"] != "http":
            return
        began, status, body = perf_counter(), 0, _Body()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        self._in_hand += 1
        try:
            async with asyncio.timeout(self._http.timeout_seconds) as limit:
                await self._read(scope, receive, body)
                if perf_counter() - began > self._http.timeout_seconds / 10:  # else not worth another timer
                    limit.reschedule(asyncio.get_running_loop().time() + self._http.timeout_seconds)
                if body.is_whole:
                    await self._app(scope, _handing_over(body, receive), sent)
        except Exception as error:
            refusal = _refusal(error, self._http, body)
            if refusal.code == "internal":
                log.error(
                    "A request failed. This is a bug.", method=scope["method"], path=_path(scope), trail=trail(error)
                )
            if status:  # it has begun to answer: the server sees to what is missing of that
                return
            answer = problem(refusal, scope["path"], is_empty=self._http.empty_error_bodies)
            if not body.is_whole:
                answer.headers["Connection"] = "close"  # what is left of the body is not read
            await answer(scope, receive, sent)
        finally:
            self._in_hand -= 1
            self._held_bytes -= body.size
            tell = self._log.info if status >= 400 else self._log.debug
            milliseconds = round((perf_counter() - began) * 1000, 1)
            event = "Answered." if status else "Gone before it was answered."
            tell(event, method=scope["method"], path=_path(scope), status=status, milliseconds=milliseconds)

    async def _read(self, scope: Scope, receive: Receive, body: _Body) -> None:
        """Read the body within the limits."""
        http, headers = self._http, dict(scope["headers"])
        if self._is_open and not _names_this_machine(headers.get(b"host", b"localhost")):
            raise Refusal(
                "forbidden",
                "Host names another machine: without tokens (auth) only localhost and loopback addresses are answered",
            )
        if self._in_hand > http.maximum_concurrent and scope["path"] not in self._never_full:
            raise Refusal("unavailable", "too many requests are in hand (http.maximum_concurrent): ask again")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal("unsupported_media_type", "Content-Encoding: send the body as it is, without compression")
        limit = http.body_limit_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        while not body.is_whole:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            chunk = message.get("body", b"")
            body.chunks.append(chunk)
            body.size += len(chunk)
            self._held_bytes += len(chunk)
            if body.size > limit:
                raise _too_large(limit)
            if self._held_bytes > MAXIMUM_HELD_BYTES:
                raise Refusal("unavailable", "too many large bodies are in hand: nothing was done; ask again")
            body.is_whole = not message.get("more_body")


def _handing_over(body: _Body, receive: Receive) -> Receive:
    """Return what hands the body to the application."""
    rest: list[Message] = [{"type": "http.request", "body": b"".join(body.chunks), "more_body": False}]

    async def hand_over() -> Message:
        return rest.pop() if rest else await receive()

    return hand_over


def _refusal(error: Exception, http: Http, body: _Body) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TimeoutError) and not body.is_whole:
        return Refusal(
            "unavailable",
            f"the body has not come within {http.timeout_seconds:g} s (http.timeout_seconds): nothing was done",
        )
    if isinstance(error, TimeoutError):
        return Refusal(
            "unavailable",
            f"no answer within {http.timeout_seconds:g} s (http.timeout_seconds): it may have been done; ask again",
        )
    return Refusal("internal", "the bridge failed: see its log")


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"body: at most {limit} bytes (http.body_limit_bytes)")


@lru_cache(maxsize=1_024)
def _names_this_machine(host: bytes) -> bool:
    try:
        return is_loopback(urlsplit(f"//{host.decode('ascii')}").hostname or "")
    except ValueError:
        return False


def _path(scope: Scope) -> str:
    if is_of_rooms(scope["path"]) and scope["path"] != ROOMS:
        return f"{ROOMS}/*"  # who knows the token of a room may enter
    path: bytes = scope["raw_path"]  # as it came, so that no character of it does anything to who reads the log
    return path[:LOGGED_PATH_LENGTH].decode("ascii", "backslashreplace")
