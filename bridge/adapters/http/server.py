"""The HTTP server: the application, behind the gate, on a socket of its own in the bridge's event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version

import structlog
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from bridge.adapters.http.calls import JSON, Calls
from bridge.adapters.http.connections import IDLE_SECONDS, Bounds, Connection
from bridge.adapters.http.documents import api
from bridge.adapters.http.endpoints import endpoint_routes
from bridge.adapters.http.gate import App, Gate
from bridge.adapters.http.health import HEALTH_PATHS, health_routes
from bridge.adapters.http.issuer import TokenIssuer
from bridge.adapters.http.rooms import room_routes
from bridge.adapters.http.router import Router
from bridge.adapters.http.rpc import rpc_routes
from bridge.adapters.http.schemas import Bodies
from bridge.adapters.http.security import security_routes
from bridge.adapters.http.tokens import Tokens
from bridge.desk import Desk
from bridge.domain.rules import Rules
from bridge.errors import ConfigError
from bridge.health import Health
from bridge.settings import Http, Settings

log = structlog.get_logger("bridge.http")

STOP_SECONDS = 2
BACKLOG = 1024


def make_app(settings: Settings, desk: Desk, rules: Rules, health: Health) -> Gate:
    """Return the application.

    Raises:
        ConfigError: a key file of ``[auth]`` cannot be used.
    """
    http, auth = settings.http, settings.auth
    calls = Calls(Tokens(auth), desk, rules, settings.default_organization)
    bodies = Bodies(rules, is_open=auth.mode == "none")
    router = Router(empty_error_bodies=http.empty_error_bodies)

    router.include(endpoint_routes(calls, bodies), http.base_path)
    router.include(rpc_routes(calls, bodies))
    router.include(room_routes(calls, rules, settings.rooms.api_key))
    router.include(health_routes(health))
    if auth.token_endpoint:
        routes = security_routes(TokenIssuer(auth, settings.default_organization))
        # Clients know it with and without the path of the API.
        for prefix in dict.fromkeys((http.base_path, "")):
            router.include(routes, prefix)

    @cache
    def document() -> bytes:
        return api(router.paths, _version(), checks_tokens=auth.mode == "jwt")

    async def described(_: Request) -> Response:
        return Response(document(), media_type=JSON)

    router.add("GET", "/openapi.json", described)
    return Gate(router, http, never_full=HEALTH_PATHS, is_open=auth.is_open)


def _version() -> str:
    try:
        return version("endpoint-bridge")
    except PackageNotFoundError:  # a checkout that runs where it lies
        return "0"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are the bridge's


@asynccontextmanager
async def serving(app: App, http: Http) -> AsyncIterator[int]:
    """Serve the application while the context lasts; yields the port.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    listening = _listen(http.host, http.port)
    port: int = listening.getsockname()[1]
    bounds = Bounds(IDLE_SECONDS + 2 * http.timeout_seconds)  # the gate's limits for a body and for an answer go first
    server = _Server(
        uvicorn.Config(
            app,
            http=partial(Connection, bounds),  # type: ignore[arg-type]  # called like the class
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )
    working = asyncio.create_task(server.serve(sockets=[listening]), name="http")
    log.info("HTTP listens.", host=http.host, port=port)
    try:
        yield port
    finally:
        server.should_exit = True
        await working


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"http.host: {host} is no address of this machine ({error.strerror}); name another") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"http.port: {host}:{port} cannot be listened on ({error.strerror}); name another, or 0 for no HTTP"
        ) from None
    listening.setblocking(False)
    return listening
