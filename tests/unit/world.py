"""A world in one hand: the real line over the registry's model, a broker that remembers, and a clock moved by hand.

Nothing here waits: the line is a coroutine that is stepped until it asks for more.
"""

import json
import types
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from bridge.adapters.memory import Journal, MemoryRegistry, Ranks
from bridge.desk import Desk
from bridge.domain.audit import Auditor
from bridge.domain.commands import Command
from bridge.domain.inputs import Input
from bridge.domain.intake import Intake, Limits
from bridge.domain.journal import JournalEntry, decode_entry
from bridge.domain.registry_topics import RegistryTopics
from bridge.domain.routes import RouteEntry, audit_masks, routes
from bridge.domain.routing import Router
from bridge.domain.rules import Rules
from bridge.domain.topics import EndpointTopics, InputTopics
from bridge.domain.values import KINDS, Kind, Output, Receipt
from bridge.errors import Refusal
from bridge.inbox import Inbox, Order
from bridge.meters import Meters
from bridge.outcomes import Outcomes
from bridge.pipeline import Line, Reporter
from bridge.settings import Topics
from bridge.settlement import Settlement

REJECTED = "bridge/test/rejected"
REPLIES = "replies/test"
REGISTRY: dict[Kind, str] = {kind: f"registry/{kind}s/{{id}}" for kind in KINDS}


class Message(NamedTuple):
    """One PUBLISH that a client sends."""

    topic: str
    payload: bytes = b""
    qos: int = 1
    retain: bool = False
    connection: str = ""
    endpoint: str = ""
    response_topic: str | None = None
    correlation: bytes | None = None
    packet_id: int | None = None
    duplicate: bool = False


def message(topic: str, payload: object = b"", **rest: Any) -> Message:
    """A message; a payload that is neither bytes nor text is written as JSON."""
    if isinstance(payload, str):
        payload = payload.encode()
    return Message(topic, payload if isinstance(payload, bytes) else json.dumps(payload).encode(), **rest)


def input_of(message: Message) -> Input:
    return Input(
        message.topic,
        message.payload,
        message.retain,
        message.duplicate,
        message.connection,
        message.endpoint,
        message.response_topic,
        message.correlation,
    )


class RpcError(Exception):
    """What an RPC answered in place of a result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Caller:
    """Somebody within the process who waits: for an answer, a refusal, or no more."""

    def __init__(self) -> None:
        self.is_open = True
        self.told: Any = None
        self.refusal: Refusal | None = None

    def answer(self, result: object) -> None:
        assert self.is_open
        self.is_open, self.told = False, result

    def refuse(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.answer(refusal.code)


def copies_of(outputs: Iterable[Output]) -> list[Output]:
    """What the broker is sent: an output for each topic."""
    return [msgspec.structs.replace(output, topic=topic, others=()) for output in outputs for topic in output.topics]


class FakeBroker:
    """Remembers what is published and acknowledged; settles at once, or when the test says so."""

    def __init__(self, *, settles: bool = True) -> None:
        self.settles = settles
        self.largest_packet_bytes = 268_435_460
        self.outputs: list[Output] = []
        self.kept: dict[str, bytes] = {}
        self.batches: list[list[Output]] = []
        self.waiting: list[tuple[int, Callable[[list[int]], None]]] = []
        self.acknowledged: list[Receipt] = []

    def publish(self, outputs: Sequence[Output], settled: Callable[[list[int]], None]) -> None:
        copies = copies_of(outputs)
        self.outputs += copies
        self.kept.update((output.topic, output.payload) for output in copies if output.retain)
        if outputs:
            self.batches.append(copies)
        if self.settles or not outputs:
            settled([0] * len(copies))
        else:
            self.waiting.append((len(copies), settled))

    def settle(self, code: int = 0) -> None:
        """The broker acknowledges everything that was published."""
        waiting, self.waiting = self.waiting, []
        for count, settled in waiting:
            settled([code] * count)

    def acknowledge(self, receipts: Iterable[Receipt]) -> None:
        for receipt in receipts:
            receipt.done = True
            self.acknowledged.append(receipt)

    async def drained(self) -> None:
        return

    def read_on(self) -> None:
        return


class _SteppedInbox(Inbox):
    @types.coroutine
    def wait(self) -> Generator[None, None, None]:
        while not self._arrivals:
            yield


def _to_its_end(work: Coroutine[None, None, None]) -> None:
    with suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waits")


class _SteppedOutcomes(Outcomes):
    @types.coroutine
    def wait(self) -> Generator[None, None, None]:
        while not self.is_settled:
            yield


class World:
    """One bridge. ``registry`` and ``kept`` (retained messages) hand what an ended world left to the next one."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        prefix: str = "",
        default_organization: str = "default",
        overrides: Iterable[RouteEntry] = (),
        endpoint_topic: str = "users/endpoints/{endpoint}",
        registry_topics: bool = False,
        registry: MemoryRegistry | None = None,
        kept: Mapping[str, bytes] = {},
        settles: bool = True,
        instance: str = "i1",
        owed: Iterable[Any] = (),
    ) -> None:
        self.rules = rules or Rules(organization_in_topic="{organization}" in prefix)
        self.registry = registry or MemoryRegistry(bridge=f"test/{instance}")
        self.registry.bridge = f"test/{instance}"
        self.broker = FakeBroker(settles=settles)
        self.broker.kept.update(kept)
        self.meters = Meters()
        self.counts = self.meters.counts
        self.inbox = _SteppedInbox(self.counts)
        self.desk = Desk(timeout_seconds=5)
        self.settlement = Settlement(self.broker, self.counts)
        self.receipts: list[Receipt] = []
        self.connection = 0
        self._numbers = 0
        self._calls = 0
        self._randoms = 0
        self._topics = Topics()
        endpoint_topics = EndpointTopics(endpoint_topic, "replies/", "clients/{user}/replies/", prefix)
        table = routes(overrides, self.rules.reminder_event)
        masks = audit_masks(table, self.rules.reminder_event)
        self.outcomes = _SteppedOutcomes(
            registry=self.registry,
            broker=self.broker,
            settlement=self.settlement,
            auditor=Auditor(endpoint_topics.endpoint_of, masks) if self.rules.audit_ms else None,
            maximum_audit=100,
            counts=self.counts,
        )
        self.line = Line(
            registry=self.registry,
            broker=self.broker,
            inbox=self.inbox,
            desk=self.desk,
            settlement=self.settlement,
            outcomes=self.outcomes,
            intake=Intake(
                InputTopics(self._topics.model_dump(), prefix, default_organization),
                endpoint_topics,
                self.rules,
                Limits(),
                self._random,
            ),
            router=Router(table, endpoint_topics, self.rules.reminder_event),
            rules=self.rules,
            home="default",  # the registry's, whatever the default one is by now
            registry_topics=RegistryTopics(REGISTRY, prefix, "default") if registry_topics else None,
            reporter=Reporter(self.broker, REJECTED),
            instance=instance,
            new_epoch=lambda: f"{instance}-epoch-{self.connection}",
            meters=self.meters,
        )
        self.line.owe(owed)
        self._run = self.line.run()
        self._follow = self.outcomes.follow(_to_its_end)
        self.connect(session_present=registry is not None)
        self.tick()

    def _random(self) -> str:
        self._randoms += 1
        return f"random{self._randoms}"

    # What happens to the bridge.

    def work(self) -> list[Output]:
        """Let the line take everything that has arrived; returns what it published."""
        before = len(self.broker.outputs)
        self._run.send(None)
        self._follow.send(None)
        return self.broker.outputs[before:]

    def end(self) -> None:
        """End the line where it waits for its inbox."""
        self._run.close()

    def connect(self, *, session_present: bool = True) -> None:
        self.connection += 1
        self._numbers = 0
        self.inbox.connected(self.connection, session_present)
        self.work()

    def arrive(self, *messages: Message) -> None:
        """Let messages wait in the inbox, as one read brings them."""
        arrivals = []
        for one in messages:
            receipt = None
            if one.qos:
                self._numbers += 1
                packet_id = one.packet_id or (self._numbers - 1) % 65_535 + 1
                receipt = Receipt(self.connection, self._numbers, packet_id)
                self.receipts.append(receipt)
            arrivals.append((input_of(one), receipt))
        self.inbox.received(arrivals, 100 * len(arrivals))

    def feed(self, *messages: Message) -> list[Output]:
        """Take messages through the line in one batch."""
        self.arrive(*messages)
        return self.work()

    def say(self, topic: str, payload: object = b"", **rest: Any) -> dict[str, list[Any]]:
        """Publish one message; returns who was told what."""
        return told(self.feed(message(topic, payload, **rest)))

    def call(self, method: str, params: object = b"", *, user: str | None = None, prefix: str = "") -> Any:
        """Call by RPC and return the result, or raise `RpcError`."""
        self._calls += 1
        branch = f"clients/{user}/" if user is not None else ""
        correlation = str(self._calls).encode()
        outputs = self.feed(
            message(
                f"{prefix}{branch}rpc/{method}",
                params,
                response_topic=f"{branch}{REPLIES}",
                correlation=correlation,
            )
        )
        [answer] = [json.loads(output.payload) for output in outputs if output.correlation == correlation]
        if "error" in answer:
            raise RpcError(**answer["error"])
        return answer["result"]

    def call_told(self, method: str, params: object = b"") -> dict[str, list[Any]]:
        """Call by RPC; returns who was told what."""
        before = len(self.broker.outputs)
        self.call(method, params)
        return told(self.broker.outputs[before:])

    def order(self, command: Command, organization: str = "default") -> "Caller":
        """Let a command of somebody within the process wait in the inbox."""
        caller = Caller()
        self.inbox.order(Order(organization, command, caller))
        return caller

    def tick(self, *, caught_up: bool = True) -> dict[str, list[Any]]:
        """A PINGRESP: the registry clock moves to now, and what is due happens, unless messages wait at the broker."""
        self.inbox.confirmed(self.connection, self._numbers, caught_up)
        return told(self.work())

    def pass_seconds(self, seconds: float) -> dict[str, list[Any]]:
        """Let time pass with a tick each second; returns who was told what meanwhile."""
        before = len(self.broker.outputs)
        left_ms = round(seconds * 1000)
        while left_ms:
            step_ms = min(left_ms, 1000)
            self.registry.now_ms += step_ms
            left_ms -= step_ms
            self.tick()
        return told(self.broker.outputs[before:])

    def jump_seconds(self, seconds: float) -> dict[str, list[Any]]:
        """Let the registry clock jump there at once, as if it had ticked all the time."""
        self.registry.now_ms += round(seconds * 1000)
        self.registry.clock_ms += round(seconds * 1000)
        self.registry.tick_ms = self.registry.now_ms
        before = len(self.broker.outputs)
        self.tick()
        self.tick()  # where the first one was late, it ended nothing
        return told(self.broker.outputs[before:])

    def pause_seconds(self, seconds: float) -> dict[str, list[Any]]:
        """Let time pass without the bridge, then tick once."""
        self.registry.now_ms += round(seconds * 1000)
        return self.tick()

    def restarted(self, **rest: Any) -> "World":
        """The next run of the bridge on the same records, beside the same broker."""
        return World(self.rules, registry=self.registry, kept=self.broker.kept, **{"instance": "i2", **rest})

    # Orders in short.

    def register(self, user: str, endpoint: str, seconds: int = 600, **rest: Any) -> Any:
        params = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": seconds, **rest}
        return self.call("register_endpoint", params)

    def online(self, user: str, connection: str = "", kind: str = "user") -> dict[str, list[Any]]:
        return self.say(f"presence/{kind}s/{user}", "online", connection=connection)

    def offline(self, user: str, connection: str = "", kind: str = "user") -> dict[str, list[Any]]:
        return self.say(f"presence/{kind}s/{user}", "offline", connection=connection)

    def session(self, session: str, event_type: str, **fields: Any) -> dict[str, list[Any]]:
        return self.say(f"sessions/{session}", {"type": event_type, **fields})

    def join(self, session: str, *users: str, **fields: Any) -> dict[str, list[Any]]:
        return self.session(session, "JoinSessionEvent", sessionUsers=list(users), **fields)

    def stop(self, session: str, **fields: Any) -> dict[str, list[Any]]:
        return self.session(session, "StopSessionEvent", **fields)

    def leave(self, session: str, *users: str, **fields: Any) -> dict[str, list[Any]]:
        return self.session(session, "LeaveSessionEvent", leavingUsers=list(users), **fields)

    def reply(self, session: str, user: str, answer: object = "REPLY_DENIED") -> dict[str, list[Any]]:
        return self.session(session, "JoinSessionReplyEvent", userUuid=user, joinReply=answer)

    def party(self, room: str, user: str, party: str, **content: Any) -> dict[str, list[Any]]:
        """A party says that it is there; ``sender_type``, ``receivers`` and the like go beside the content."""
        return self.room(room, "party.online", user, party, **content)

    def leaves(self, room: str, user: str, party: str, **content: Any) -> dict[str, list[Any]]:
        return self.room(room, "party.leaves", user, party, **content)

    def room(
        self,
        room: str,
        category: str,
        user: str,
        party: str | None = None,
        *,
        client: str | None = None,
        kind: str = "user",
        top: dict[str, Any] | None = None,
        **content: Any,
    ) -> dict[str, list[Any]]:
        """A room event from a service, or from ``client``; ``top`` holds fields beside ``content``."""
        if party is not None:
            content["sessionId"] = party
        event = {"category": category, "sender": {"_id": user, "type": kind}, "content": content, **(top or {})}
        return self.say(f"presence/rooms/{room}" if client is None else f"clients/{client}/rooms/{room}", event)

    # What stands there afterwards.

    @property
    def rejections(self) -> list[dict[str, Any]]:
        return [json.loads(output.payload) for output in self.broker.outputs if output.topic.endswith(REJECTED)]

    @property
    def codes(self) -> list[str]:
        """The codes of all rejections so far."""
        return [rejection["reason"].partition(":")[0] for rejection in self.rejections]

    def record(self, key: str, organization: str = "default") -> dict[str, Any] | None:
        stored = self.registry.organizations.get(organization, {}).get(key)
        return json.loads(stored.split(b":", 2)[2]) if isinstance(stored, bytes) else None

    def stored(self, organization: str = "default") -> set[str]:
        """The keys of all records."""
        values = self.registry.organizations.get(organization, {})
        return {key for key, value in values.items() if isinstance(value, bytes)}

    def deadlines(self, organization: str = "default") -> dict[str, int]:
        found = self.registry.organizations.get(organization, {}).get("deadlines")
        return dict(found) if isinstance(found, Ranks) else {}

    def journal(self, organization: str = "default") -> dict[str, tuple[str, bytes]]:
        found = self.registry.organizations.get(organization, {}).get("journal")
        return dict(found) if isinstance(found, Journal) else {}

    @property
    def retained(self) -> dict[str, bytes]:
        """What a broker would hand to whoever subscribes now: topic -> payload."""
        return {topic: payload for topic, payload in self.broker.kept.items() if payload}

    @property
    def owed(self) -> list[tuple[str, str, JournalEntry]]:
        """What recovery would find in the journal."""
        return [
            (organization, entry, decode_entry(batch))
            for organization in self.registry.organizations
            for entry, (_, batch) in self.journal(organization).items()
        ]

    @property
    def all_acknowledged(self) -> bool:
        return all(receipt.done for receipt in self.receipts)


def told(outputs: Iterable[Output]) -> dict[str, list[Any]]:
    """Endpoint -> the events that it was told, in order; the last level of the topic names it."""
    events: dict[str, list[Any]] = {}
    for output in outputs:
        if output.event_id:
            events.setdefault(output.topic.rpartition("/")[2], []).append(json.loads(output.payload))
    return events


def types_of(events: Iterable[Any]) -> list[str]:
    return [event["type"] for event in events]
