"""The gate: what holds for every request, whatever it asks for, as plain ASGI around the application.

It bounds bodies, times and numbers, answers a bug with an error, and writes one line of log for each request, which
never holds a query, a body or a token, that of a room neither.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any

import structlog

from bridge.adapters.http.problems import ROOMS, is_of_rooms, problem
from bridge.errors import Refusal, trail
from bridge.settings import Http

log = structlog.get_logger("bridge.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGGED_PATH_LENGTH = 200


class Gate:
    """An ASGI application before the application.

    Args:
        app: the application.
        http: the limits.
        prepare: does what would take the loop long when the first one asks for it.
    """

    def __init__(self, app: App, http: Http, prepare: Callable[[], object] = lambda: None) -> None:
        self.prepare = prepare
        self._app = app
        self._http = http
        self._in_hand = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request; anything but HTTP is turned away."""
        if scope["type"] != "http":
            return
        began, status = perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        self._in_hand += 1
        try:
            body = await self._body(scope, receive)
            async with asyncio.timeout(self._http.timeout_seconds):
                await self._app(scope, body, sent)
        except Exception as error:
            refusal = _refusal(error, self._http)
            if refusal.code == "internal":
                log.error(
                    "A request failed. This is a bug.", method=scope["method"], path=_path(scope), trail=trail(error)
                )
            if status:  # it has begun to answer: the server sees to what is missing of that
                return
            answer = problem(refusal, scope["path"], is_empty=self._http.empty_error_bodies)
            if refusal.code == "too_large":
                answer.headers["Connection"] = "close"  # what is left of the body is not read
            await answer(scope, receive, sent)
        finally:
            self._in_hand -= 1
            tell = log.info if status >= 400 else log.debug
            milliseconds = round((perf_counter() - began) * 1000, 1)
            tell("Answered.", method=scope["method"], path=_path(scope), status=status, milliseconds=milliseconds)

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """Read the body within the limits, and return what hands it to the application."""
        if self._in_hand > self._http.maximum_concurrent:
            raise Refusal("unavailable", "too many requests are in hand (http.maximum_concurrent): ask again")
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal("unsupported_media_type", "Content-Encoding: send the body as it is, without compression")
        limit = self._http.body_limit_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._http.timeout_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return receive
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    break
        rest: list[Message] = [{"type": "http.request", "body": b"".join(chunks), "more_body": False}]

        async def hand_over() -> Message:
            return rest.pop() if rest else await receive()

        return hand_over


def _refusal(error: Exception, http: Http) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TimeoutError):
        return Refusal("unavailable", f"not done within {http.timeout_seconds:g} s (http.timeout_seconds): ask again")
    return Refusal("internal", "the bridge failed: see its log")


def _too_large(limit: int) -> Refusal:
    return Refusal("too_large", f"body: at most {limit} bytes (http.body_limit_bytes)")


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    if is_of_rooms(path) and path != ROOMS:
        return f"{ROOMS}/*"  # who knows the token of a room may enter
    return path[:LOGGED_PATH_LENGTH]
