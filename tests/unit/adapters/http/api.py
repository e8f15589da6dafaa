"""The HTTP application over a whole bridge in memory, asked by httpx as by any client."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import httpx

from bridge.adapters.http.server import make_app
from bridge.health import Health
from bridge.settings import Settings
from tests.unit.adapters.http.identity import SECRET, token
from tests.unit.world import World, told

BASE = "/rtc-api/users/endpoints"


def bearer(**claims: Any) -> dict[str, str]:
    """The header of a token that `JWT` takes."""
    return {"Authorization": f"Bearer {token(SECRET, 'HS256', None, **claims)}"}


JWT = {"mode": "jwt", "algorithms": ["HS256"], "secret": SECRET}


class Api:
    """A context manager; ``settings`` as in the configuration file. The line works whenever something waits for it."""

    def __init__(self, world: World | None = None, **settings: Any) -> None:
        self.world = world or World()
        self.world.inbox.is_subscribed = True
        self.health = Health()
        self.settings = Settings.model_validate(settings)
        self.app = make_app(self.settings, self.world.desk, self.world.rules, self.health)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, method: str, path: str, body: object = None, **rest: Any) -> httpx.Response:
        """Send a request; ``body`` is sent as JSON, bytes as they are, as JSON too unless headers say otherwise."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= rest.pop("headers", {})
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        asking = asyncio.create_task(self._client.request(method, path, content=content, headers=headers, **rest))
        for _ in range(1_000):
            if asking.done():
                break
            await asyncio.sleep(0)
            if self.world.inbox.waiting:
                self.world.work()
        return await asyncio.wait_for(asking, 10)

    async def post(self, path: str, body: object = None, **rest: Any) -> httpx.Response:
        """POST below the base path of the endpoints."""
        return await self.ask("POST", BASE + path, body, **rest)

    async def get(self, path: str = "", **rest: Any) -> httpx.Response:
        """GET below the base path of the endpoints."""
        return await self.ask("GET", BASE + path, **rest)

    async def register(self, user: str, endpoint: str, **more: Any) -> None:
        """As a service, without a token or with one."""
        body = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600, **more}
        headers = bearer(roles=["SERVICE"]) if self.settings.auth.mode == "jwt" else {}
        answer = await self.post("", body, headers=headers)
        assert answer.status_code == 200, answer.text

    def told(self) -> dict[str, list[Any]]:
        """What the endpoints have been told so far."""
        return told(self.world.broker.outputs)
