"""A call of the bridge over MQTT RPC, as a guest at the broker that the settings name."""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from bridge.adapters.mqtt.guest import Guest, Heard, visit
from bridge.adapters.mqtt.settings import SessionSettings
from bridge.config import load_settings, rooms
from bridge.domain.ids import is_organization
from bridge.errors import ConfigError, Refusal, Unreachable
from bridge.settings import Settings

ANSWER_SECONDS: Final = 10
CONNECT_SECONDS: Final = 5.0
NAMING: Final = frozenset({"register_endpoint", "send_event"})

_T = TypeVar("_T")


class Place:
    """Where a command calls: the settings, and an organization.

    Args:
        settings: in force.
        organization: None: the default one.

    Attributes:
        rooms: what the settings alone decide.

    Raises:
        ConfigError: it cannot name an organization.
    """

    def __init__(self, settings: Settings, organization: str | None) -> None:
        self.settings = settings
        self.organization = organization or settings.default_organization
        if not is_organization(self.organization):
            raise ConfigError("--organization: use 1..64 of A-Z a-z 0-9 . _ -")
        self._prefix = settings.prefix.replace("{organization}", self.organization)
        self._is_elsewhere = (
            "{organization}" not in settings.prefix and self.organization != settings.default_organization
        )
        self.rooms = rooms(settings)

    def named(self, method: str) -> dict[str, object]:
        """Return the parameters by which a method is told of the organization, where the topic does not name it.

        Raises:
            ConfigError: it takes none.
        """
        if not self._is_elsewhere:
            return {}
        if method not in NAMING:
            raise ConfigError(
                f"--organization: {method} over MQTT is for {self.settings.default_organization} alone, since the "
                "prefix names no {organization}; ask over HTTP"
            )
        return {"organizationId": self.organization}

    def topic(self, template: str, /, **values: str) -> str:
        """Return a topic of ``[topics]`` with its placeholders filled in; ``+`` for those that are left out."""
        return self._prefix + _filled(getattr(self.settings.topics, template), values)

    def guest(self, filters: Sequence[str]) -> SessionSettings:
        """Return how a guest reaches the broker who wants to hear these filters."""
        mqtt = self.settings.mqtt
        return SessionSettings(
            host=mqtt.host,
            port=mqtt.port,
            client_id="",
            subscriptions=list(filters),
            state_topic="",
            username=mqtt.username or None,
            password=mqtt.password.get_secret_value() or None,
            tls=self.rooms.broker_tls,
            server_name=mqtt.server_name,
            maximum_packet_bytes=mqtt.maximum_packet_bytes,
            connect_timeout_seconds=CONNECT_SECONDS,
        )


def _filled(template: str, values: dict[str, str]) -> str:
    levels = (values.get(level[1:-1], "+") if level.startswith("{") else level for level in template.split("/"))
    return "/".join(levels)


class Caller:
    """Calls methods; `calling` makes it.

    Attributes:
        guest: its connection.
        others: what came on the filters besides answers.
    """

    def __init__(self, place: Place, guest: Guest, reply: str) -> None:
        self.place = place
        self.guest = guest
        self.others: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._reply = reply
        self._answers: dict[bytes, asyncio.Future[bytes]] = {}

    async def ask(self, method: str, **params: object) -> Any:
        """Call a method and return its result; parameters that are None are left out.

        Raises:
            Refusal: the bridge's own.
            Unreachable: nobody answers.
        """
        given = {name: value for name, value in params.items() if value is not None} | self.place.named(method)
        return await self.ask_with(method, json.dumps(given).encode())

    async def ask_with(self, method: str, params: bytes) -> Any:
        """The same with the parameters as JSON text."""
        topic, correlation = self.place.topic("rpc", method=method), secrets.token_bytes(8)
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[correlation] = waiting
        try:
            # It goes when nobody waits for it any more: a bridge that comes back later shall not do it.
            is_heard = await self.guest.publish(
                topic, params, response_topic=self._reply, correlation=correlation, expiry_seconds=ANSWER_SECONDS
            )
            if not is_heard:
                raise Unreachable(f"No bridge listens on {topic}: is it running, with this prefix and these [topics]?")
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = json.loads(await waiting)
        except TimeoutError:
            raise Unreachable(
                f"No bridge answers on {topic} within {ANSWER_SECONDS} s: is it running, and does it reach Redis? "
                "`endpoint-bridge doctor` looks closer"
            ) from None
        finally:
            del self._answers[correlation]
        if "error" in answer:
            raise Refusal(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    async def listen(self) -> None:
        """Sort what comes: answers to who waits for them, all else to ``others``."""
        while (heard := await self.guest.messages.get()) is not None:
            waiting = self._answers.get(heard.correlation or b"")
            if waiting is None:
                self.others.put_nowait(heard)
            elif not waiting.done():
                waiting.set_result(heard.payload)
        self.others.put_nowait(None)


@asynccontextmanager
async def calling(place: Place, *filters: str) -> AsyncIterator[Caller]:
    """Visit the broker for calls, and to hear ``filters``.

    Raises:
        Unreachable: the broker does not answer, or refuses.
    """
    reply = f"{place.settings.topics.replies}{secrets.token_hex(8)}"
    prefix = place.topic("replies").removesuffix(place.settings.topics.replies)
    async with visit(place.guest([prefix + reply, *filters])) as guest:
        caller = Caller(place, guest, reply)
        listening = asyncio.create_task(caller.listen(), name="guest-listen")
        try:
            yield caller
        finally:
            listening.cancel()


def with_caller(
    config: Path | None, secrets_folder: Path | None, organization: str | None, work: Callable[[Caller], Awaitable[_T]]
) -> _T:
    """Do a command's work with a caller, and return its result."""
    place = Place(load_settings(config, secrets_folder, os.environ), organization)

    async def run() -> _T:
        async with calling(place) as caller:
            return await work(caller)

    return asyncio.run(run())


def asked(
    config: Path | None, secrets_folder: Path | None, organization: str | None, method: str, **params: object
) -> Any:
    """Call one method and return its result."""
    return with_caller(config, secrets_folder, organization, lambda caller: caller.ask(method, **params))
