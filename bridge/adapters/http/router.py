"""The router: from a request's path and method to its handler, as plain ASGI.

FastAPI keeps the table of routes and writes ``/openapi.json`` of it. What it does besides for each request (it resolves
dependencies, validates models, opens stacks of exits) no handler here needs, and it took half of a call's time.
"""

import re
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from bridge.adapters.http.gate import Receive, Scope, Send
from bridge.adapters.http.problems import problem
from bridge.errors import Refusal

Handler = Callable[[Request], Awaitable[Response]]


class _Request(Request):
    async def body(self) -> bytes:
        message = await self.receive()  # the gate has read it whole
        body: bytes = message["body"]
        return body


class _Form(NamedTuple):
    """Paths of one form, which has braces in it."""

    pattern: re.Pattern[str]
    methods: dict[str, Handler]


class Router:
    """Knows the handlers of all routes that it was given; ``HEAD`` is answered as ``GET``, without the body.

    Args:
        empty_error_bodies: what there is no route for is answered without a body.
    """

    def __init__(self, *, empty_error_bodies: bool) -> None:
        self._empty_error_bodies = empty_error_bodies
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._forms: dict[str, _Form] = {}

    def include(self, routes: APIRouter, prefix: str = "") -> None:
        """Take the routes of a router, whose paths stand behind ``prefix``."""
        for route in routes.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                self.add(method, prefix + route.path, route.endpoint)

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Take one route; what stands in braces in its path is any one level of it."""
        if "{" in path:
            methods = self._forms.setdefault(path, _Form(compile_path(path)[0], {})).methods
        else:
            methods = self._fixed.setdefault(path, {})
        methods[method] = handler
        if method == "GET":
            methods["HEAD"] = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            Refusal: the handler's.
        """
        path, method = scope["path"], scope["method"]
        methods = self._fixed.get(path, {})
        handler = methods.get(method)
        if handler is None:
            for form in self._forms.values():
                if found := form.pattern.match(path):
                    methods, handler = methods or form.methods, form.methods.get(method)
                    scope["path_params"] = found.groupdict()
                    break
        response = await (handler(_Request(scope, receive)) if handler else self._nowhere(path, methods))
        await response(scope, receive, send)

    async def _nowhere(self, path: str, methods: Collection[str]) -> Response:
        if not methods:
            refusal = Refusal("not_found", "no such path: /openapi.json lists them")
            return problem(refusal, path, is_empty=self._empty_error_bodies)
        refusal = Refusal("method_not_allowed", "this path takes other methods: the header Allow names them")
        response = problem(refusal, path, is_empty=self._empty_error_bodies)
        response.headers["Allow"] = ", ".join(sorted(methods))
        return response
