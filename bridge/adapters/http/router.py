"""The router: from a request's path and method to its handler, as plain ASGI; and what the document says of each."""

import re
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from bridge.adapters.http.gate import Receive, Scope, Send
from bridge.adapters.http.problems import problem
from bridge.adapters.http.schemas import Schema
from bridge.errors import Refusal

Handler = Callable[[Request], Awaitable[Response]]


class Route(NamedTuple):
    """One call.

    Attributes:
        method: in capitals.
        path: what stands in braces in it is any one level.
        handler: answers it.
        operation: what the document says of it; None: it is not told of.
        name: by which the document knows it, besides path and method.
    """

    method: str
    path: str
    handler: Handler
    operation: Schema | None
    name: str


class Routes(list[Route]):
    """The routes of one noun.

    Args:
        tag: the noun.
        prefix: stands before each path.
    """

    def __init__(self, tag: str, prefix: str = "") -> None:
        super().__init__()
        self.tag = tag
        self._prefix = prefix

    def add(self, method: str, path: str, handler: Handler, operation: Schema | None = None, name: str = "") -> None:
        """Add a route; its name is the handler's where none is given."""
        self.append(Route(method, self._prefix + path, handler, operation, name or handler.__name__))

    def on(self, method: str, path: str, operation: Schema) -> Callable[[Handler], Handler]:
        """Return what adds a route of the function that it decorates."""

        def add(handler: Handler) -> Handler:
            self.add(method, path, handler, operation)
            return handler

        return add


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

    Attributes:
        paths: what the document says: path -> method -> operation.
    """

    def __init__(self, *, empty_error_bodies: bool) -> None:
        self._empty_error_bodies = empty_error_bodies
        self._fixed: dict[str, dict[str, Handler]] = {}
        self._forms: dict[str, _Form] = {}
        self.paths: dict[str, dict[str, Schema]] = {}

    def include(self, routes: Routes, prefix: str = "") -> None:
        """Take the routes of a noun, whose paths stand behind ``prefix``."""
        for method, path, handler, operation, name in routes:
            self.add(method, prefix + path, handler)
            if operation is not None:
                of_path = self.paths.setdefault(prefix + path, {})
                known_as = re.sub(r"\W", "_", f"{name}{prefix}{path}_{method.lower()}")
                of_path[method.lower()] = {"tags": [routes.tag], "operationId": known_as, **operation}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Take one route."""
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
