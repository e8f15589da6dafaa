"""The bridge's line in this process, over the stand's Redis and without a broker: what fills a registry quickly.

Every registration goes the product's own way, decode to commit, so what stands in Redis afterwards is what a bridge
would have written. The outputs go nowhere and count as acknowledged.
"""

import itertools
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import uvloop

from bridge.adapters.registry import RedisRegistry
from bridge.config import rooms
from bridge.desk import Desk
from bridge.domain.inputs import Input
from bridge.domain.intake import Intake, Limits
from bridge.domain.values import Output, Receipt
from bridge.inbox import Inbox
from bridge.meters import Meters
from bridge.outcomes import Outcomes
from bridge.pipeline import MAXIMUM_BATCH, Line
from bridge.reporter import Reporter
from bridge.settings import Settings
from bridge.settlement import Settlement
from scripts.load.stand import StandError

LONG_SECONDS = 86_400

Message = tuple[str, str]
"""Topic, the prefix included, and payload."""


class _Nobody:
    """Implements `bridge.ports.Broker`: settles everything at once."""

    largest_packet_bytes = 268_435_460

    def publish(self, outputs: Sequence[Output], settled: Callable[[list[int]], None]) -> None:
        settled([0] * sum(output.copies for output in outputs))

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        """Nothing came from a broker."""

    async def drained(self) -> None:
        return

    def read_on(self) -> None:
        """Nothing is read."""


class _Supply(Inbox):
    """Has something to give until the messages are over; then it ends the line.

    No PINGRESP comes, so the registry clock moves for 2 s at most: nothing expires while the registry is filled.
    """

    def __init__(self, meters: Meters, messages: Iterator[Message]) -> None:
        super().__init__(meters.counts)
        self._messages = messages
        self.settle: Callable[[], Awaitable[None]]
        self.end: Callable[[], None]
        self.connected(1, session_present=True)

    async def wait(self) -> None:
        if self.waiting:
            return
        await self.settle()
        batch = [
            (Input(topic, payload.encode()), None) for topic, payload in itertools.islice(self._messages, MAXIMUM_BATCH)
        ]
        if batch:
            self.received(batch, 0)
        else:
            self.end()


def feed(settings: Settings, messages: Iterable[Message]) -> None:
    """Take messages through the line, in order, as if services had published them; return when all is committed.

    Raises:
        StandError: something was rejected.
    """
    uvloop.run(_feed(settings, iter(messages)))


async def _feed(settings: Settings, messages: Iterator[Message]) -> None:
    redis, instance = settings.redis, secrets.token_hex(4)
    registry = RedisRegistry(redis.url, key_prefix=redis.key_prefix, bridge=f"{settings.name}/{instance}")
    await registry.open()
    built, meters, broker = rooms(settings), Meters(), _Nobody()
    inbox = _Supply(meters, messages)
    settlement = Settlement(broker, meters.counts)
    mqtt = settings.mqtt
    limits = Limits(mqtt.payload_limit_bytes, mqtt.rpc_payload_limit_bytes, mqtt.status_limit_bytes)
    line = Line(
        registry=registry,
        broker=broker,
        inbox=inbox,
        desk=Desk(timeout_seconds=1),
        settlement=settlement,
        outcomes=Outcomes(
            registry=registry,
            broker=broker,
            settlement=settlement,
            auditor=None,
            maximum_audit=1,
            counts=meters.counts,
        ),
        intake=Intake(built.inputs, built.endpoint_topics, built.rules, limits, lambda: secrets.token_urlsafe(12)),
        router=built.router,
        rules=built.rules,
        home=settings.default_organization,
        registry_topics=built.registry_topics,
        reporter=Reporter(broker, "rejected"),
        instance=instance,
        new_epoch=lambda: secrets.token_hex(8),
        meters=meters,
    )
    inbox.settle = lambda: registry.settle(settlement.confirmed(1, 0))
    inbox.end = line.stop
    await line.run()
    await registry.close()
    rejected = {name: count for name, count in meters.counts.items() if name.startswith("rejected")}
    if rejected:
        raise StandError(f"the bridge takes not what the bench feeds it: {rejected}")


def registrations(
    prefix: str,
    users: int,
    endpoints: int = 1,
    *,
    letter: str = "u",
    mark: str = "~",
    last_keep_alive_seconds: int = LONG_SECONDS,
) -> Iterator[Message]:
    """Yield what registers users ``u000000``, ``u000001`` and so on with endpoints ``u000000~0``, ``~1``, ... each.

    Args:
        prefix: of the topics.
        users: how many.
        endpoints: of each user.
        letter: that the users' names begin with.
        mark: what stands between a user's name and its endpoint's number; other than ``~`` the id names no owner.
        last_keep_alive_seconds: of each user's last endpoint; all others stay for a day.
    """
    for number in range(users):
        user = f"{letter}{number:06d}"
        for endpoint in range(endpoints):
            is_last = endpoint == endpoints - 1
            call = {
                "userId": user,
                "keepAliveSeconds": last_keep_alive_seconds if is_last else LONG_SECONDS,
                "userEndpointId": f"{user}{mark}{endpoint}",
            }
            yield f"{prefix}rpc/register_endpoint", json.dumps(call)
