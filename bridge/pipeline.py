"""The line: decode, load, decide, route, commit, deliver, settle. Everything that changes anything goes through here.

One batch at a time is between load and commit; the next one collects meanwhile in the inbox. Only the line's edges wait
(Redis, the broker); decode, decide and route are the pure functions of `bridge.domain`.
"""

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import mqtt5
import msgspec
import structlog

from bridge.domain.changes import commit_of
from bridge.domain.clock import iso_ms
from bridge.domain.commands import Command, Expire, Reject
from bridge.domain.decide import decide, first_keys, first_owner
from bridge.domain.inputs import Input
from bridge.domain.intake import Intake, Reply, answer, error_answer
from bridge.domain.journal import JournalEntry, encode_entry
from bridge.domain.routing import Router
from bridge.domain.rules import Rules
from bridge.domain.state import CommitFirst, CorruptRecord, Elsewhere, NotLoaded, State
from bridge.domain.values import Claim, Commit, Conflict, Corrupt, Loading, Moment, Output, Page, Receipt, Want
from bridge.errors import Refusal, RegistryUnavailable
from bridge.inbox import Arrival, Confirmed, Connected, Inbox, Sweep
from bridge.ports import Broker, Registry
from bridge.settlement import Held, Settlement

log = structlog.get_logger("bridge.line")

MAXIMUM_BATCH = 1_000
MAXIMUM_WAVES = 6
SWEEP_BATCH = 200
_BACKOFF_SECONDS = (0.05, 2.0)

_T = TypeVar("_T")


class Stopped(Exception):
    """The line was asked to stop while it waited for Redis. What it had in hand comes again after the next start."""


class Item(msgspec.Struct, eq=False, gc=False):
    """One input's commands on their way through the line.

    Attributes:
        organization: whose records they concern.
        commands: those not decided yet, in order.
        reply: where the answer goes.
        held: the QoS 1 input to acknowledge.
        source: topic and payload size in bytes, for the report of a rejection.
    """

    organization: str
    commands: Sequence[Command]
    reply: Reply | None = None
    held: Held | None = None
    source: tuple[str, int] = ("", 0)


class _Part:
    """One organization's part of a batch: its work, how far it is decided, and what came of it."""

    def __init__(self, organization: str) -> None:
        self.organization = organization
        self.work: list[tuple[Item, Command]] = []
        self.decided = 0
        self.state: State | None = None
        self.want = Want()
        self.want_owners: set[str] = set()
        self.want_foreign: set[tuple[str, str]] = set()
        self.unfinished: list[str] = []
        self.moved: list[Item] = []
        self.is_cut = False
        self.changed: set[int] = set()
        self.journaled: list[Output] = []
        self.outputs: list[Output] = []
        self.rejections: list[tuple[Item, Refusal]] = []

    def forget(self) -> None:
        """Be as before the first load."""
        work = self.work
        self.__init__(self.organization)  # type: ignore[misc]  # to begin anew is the meaning
        self.work = work

    @property
    def is_decided(self) -> bool:
        return self.is_cut or self.decided == len(self.work)


class Reporter:
    """Tells of rejected inputs on ``bridge/<name>/rejected``: at most ten a second, the rest counted only."""

    PER_SECOND = 10

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._second = 0
        self._told = 0

    def report(self, source: tuple[str, int], refusal: Refusal, now_ms: int) -> None:
        """Publish one rejection, unless this second has had its share."""
        second = now_ms // 1000
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        if self._told > self.PER_SECOND:
            return
        topic, size_bytes = source
        report = {
            "topic": topic[:1024],
            "reason": str(refusal),
            "receivedAt": iso_ms(now_ms),
            "sizeBytes": size_bytes,
        }
        self._broker.publish([Output(self._topic, msgspec.json.encode(report), qos=0)], lambda _: None)


class Line:
    """Takes what arrives through the house.

    Args:
        registry: the records.
        broker: publishes and acknowledges.
        inbox: where arrivals wait.
        settlement: what is owed.
        intake: decodes.
        router: addresses.
        rules: the configuration's numbers.
        reporter: tells of rejections.
        default_organization: to whom an input is counted that names no organization.
        instance: unique to this process, of letters and digits; makes event ids and batch tokens unique.
        new_epoch: makes an unguessable name for a new MQTT session.
        counts: the line's counters.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        broker: Broker,
        inbox: Inbox,
        settlement: Settlement,
        intake: Intake,
        router: Router,
        rules: Rules,
        reporter: Reporter,
        default_organization: str,
        instance: str,
        new_epoch: Callable[[], str],
        counts: Counter[str],
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._inbox = inbox
        self._settlement = settlement
        self._intake = intake
        self._router = router
        self._rules = rules
        self._reporter = reporter
        self._default_organization = default_organization
        self._instance = instance
        self._new_epoch = new_epoch
        self._counts = counts
        self._batches = 0
        self._clock_ms = 0
        self._epoch: str | None = None
        self._told_ms: dict[str, int] = {}
        self._owed: list[tuple[str, str, JournalEntry]] = []
        self._is_stopping = False

    def owe(self, entries: Iterable[tuple[str, str, JournalEntry]]) -> None:
        """Take over (organization, entry id, entry) left in the journal; delivered before the first input."""
        self._owed.extend(entries)

    def stop(self) -> None:
        """Let `run` return after the batch in hand; what waits in the inbox comes again after the next start."""
        self._is_stopping = True
        self._inbox.wake()

    async def run(self) -> None:
        """Work until `stop`."""
        try:
            while not self._is_stopping:
                await self._inbox.wait()
                await self._broker.drained()
                taken = self._inbox.take(MAXIMUM_BATCH)
                if isinstance(taken, Connected):
                    await self._connected(taken)
                elif isinstance(taken, Confirmed):
                    await self._tick(taken)
                elif isinstance(taken, Sweep):
                    await self._sweep()
                elif taken:
                    await self._settle_items([item for item in map(self._item, taken) if item is not None])
        except Stopped:
            return

    # Marks.

    async def _connected(self, mark: Connected) -> None:
        epoch = self._epoch or await self._insist(lambda: self._registry.recall("session_epoch"))
        if epoch is None or not mark.session_present:
            epoch = self._new_epoch()
            await self._insist(lambda: self._registry.remember("session_epoch", epoch))
            self._settlement.forget_session()
        self._epoch = epoch
        owed, self._owed = self._owed, []
        for organization, entry_id, entry in owed:
            inputs = self._settlement.recovered(entry.inputs if entry.session_epoch == epoch else ())
            group = self._settlement.group(organization, entry_id, inputs)
            copies = [msgspec.structs.replace(output, redelivered=True) for output in entry.outputs]
            self._counts["redelivered"] += len(copies)
            self._broker.publish(copies, group.settled)

    async def _tick(self, mark: Confirmed) -> None:
        entries = self._settlement.confirmed(mark.connection, mark.acknowledged)
        if entries:
            await self._insist(lambda: self._registry.settle(entries))
        self._clock_ms = await self._insist(self._registry.tick)
        await self._sweep()

    async def _sweep(self) -> None:
        due = await self._insist(lambda: self._registry.due(SWEEP_BATCH))
        if not due:
            return
        await self._settle_items([Item(organization, (Expire(key, self._clock_ms),)) for organization, key in due])
        if len(due) == SWEEP_BATCH:
            self._inbox.put(Sweep())

    # Decode.

    def _item(self, arrival: Arrival) -> Item | None:
        packet, receipt = arrival
        topic, payload = packet.topic, packet.payload
        held = None
        if receipt is not None:
            held = self._hold(receipt, topic, payload, packet.duplicate)
            if held is None:
                return None
        source = (topic, len(payload))
        try:
            decoded = self._intake.decode(_input(packet, topic, payload))
        except Refusal as refusal:
            return Item(self._default_organization, (Reject(refusal.code, refusal.message),), held=held, source=source)
        return Item(decoded.organization, decoded.commands, decoded.reply, held, source)

    def _hold(self, receipt: Receipt, topic: str, payload: bytes, is_duplicate: bool) -> Held | None:
        return self._settlement.hold(receipt, zlib.crc32(payload, zlib.crc32(topic.encode())), is_duplicate)

    # Load and decide.

    async def _settle_items(self, items: list[Item]) -> None:
        """Take items through the rest of the line, in as many batches as it needs."""
        while items:
            items = await self._batch(items)

    async def _batch(self, items: list[Item]) -> list[Item]:
        """Take items through the line once; returns those that must go again, in order."""
        parts: dict[str, _Part] = {}
        for item in items:
            part = parts.get(item.organization)
            if part is None:
                part = parts[item.organization] = _Part(item.organization)
            part.work += [(item, command) for command in item.commands]
        await self._decide(list(parts.values()))
        rest: list[Item] = []
        for part in parts.values():
            rest += await self._commit(part)
        return rest

    async def _decide(self, parts: Sequence[_Part]) -> None:
        for part in parts:
            _first_wants(part)
        for wave in range(MAXIMUM_WAVES):
            pending = [part for part in parts if not part.is_decided]
            if not pending:
                return
            loading = await self._load(pending)
            for part in pending:
                self._take_loaded(part, loading)
                self._decide_part(part)
            if wave == MAXIMUM_WAVES - 1:
                for part in pending:
                    part.is_cut = True

    async def _load(self, parts: Sequence[_Part]) -> Loading:
        wants: dict[str, Want] = {part.organization: part.want for part in parts}
        owners: set[str] = set()
        for part in parts:
            owners |= part.want_owners
            for organization, key in part.want_foreign:
                # Another organization's record comes with its own part where that is loading too.
                wants.setdefault(organization, Want()).keys.append(key)
        return await self._insist(lambda: self._registry.load(wants, owners))

    def _take_loaded(self, part: _Part, loading: Loading) -> None:
        if part.state is None:
            part.state = self._state(part.organization, loading.moment)
        loaded = loading.organizations.get(part.organization)
        if loaded is not None:
            part.state.add(loaded, loading.owners)
        for organization, key in part.want_foreign:
            part.state.foreign[organization, key] = loading.organizations[organization].records[key]
        part.want, part.want_owners, part.want_foreign = Want(), set(), set()

    def _state(self, organization: str, moment: Moment) -> State:
        self._batches += 1
        return State(
            organization,
            moment,
            self._rules,
            id_prefix=f"{moment.now_ms:011x}{self._batches & 0xFFFF:04x}",
            id_suffix="-" + self._instance,
            timestamp=iso_ms(moment.now_ms),
            told_ms=self._told_ms,
        )

    def _decide_part(self, part: _Part) -> None:
        """Decide in order until something is missing; what follows is tried only to learn what else is."""
        state = part.state
        assert state is not None
        is_blocked = False
        work = part.work
        for index in range(part.decided, len(work)):
            item, command = work[index]
            outputs: list[Output] = []
            refusal = None
            try:
                decision = decide(command, state)
                for emission in decision.emissions:
                    self._router.route(emission, state, outputs)
                if item.reply is not None:
                    outputs.append(_reply(item.reply, answer(decision.answer)))
            except NotLoaded as missing:
                state.drop()
                is_blocked = True
                _want(part, missing)
                continue
            except CommitFirst as cut:
                state.drop()
                if not is_blocked:
                    part.is_cut = True
                    if cut.key is not None:
                        part.unfinished.append(cut.key)
                break
            except Elsewhere as elsewhere:
                state.drop()
                if not is_blocked:
                    part.moved.append(Item(elsewhere.organization, (command,), item.reply, item.held, item.source))
                    part.decided = index + 1
                continue
            except Refusal as error:
                refusal = error
            except CorruptRecord as error:
                refusal = Refusal("corrupt_record", str(error))
            except Exception as error:
                log.exception("A rule failed: the command is rejected, this is a bug.", command=type(command).__name__)
                refusal = Refusal("corrupt_record", f"the bridge failed on it ({type(error).__name__}), see its log")
            if is_blocked:
                state.drop()
                continue
            part.decided = index + 1
            if refusal is not None:
                state.drop()
                part.rejections.append((item, refusal))
                if item.reply is not None:
                    part.outputs.append(_reply(item.reply, error_answer(refusal)))
            elif state.keep():
                part.changed.add(index)
                part.journaled += outputs
                part.outputs += outputs
            else:
                part.outputs += outputs

    # Commit, deliver.

    async def _commit(self, part: _Part) -> list[Item]:
        """Commit and deliver what was decided; returns the items that must go again, in order."""
        state = part.state
        if state is None:
            return []
        moved = {id(item.held) for item in part.moved if item.held is not None}
        inputs, identities, rest = _inputs(part, moved)
        commit = commit_of(state, f"{self._instance}:{self._batches}")
        entry_id: str | None = None
        if commit.writes or commit.members or commit.deadlines or commit.floor:
            if part.journaled or identities:
                commit.journal = encode_entry(JournalEntry(self._epoch or "", identities, part.journaled))
            again, entry_id = await self._commit_records(part, commit, state)
            if again is not None:
                return again
        self._told_ms.update(state.told)
        self._deliver(part, state, inputs, entry_id)
        organization = part.organization
        unfinished = dict.fromkeys((*state.unfinished, *part.unfinished))
        return [Item(organization, (Expire(key, self._clock_ms),)) for key in unfinished] + part.moved + rest

    async def _commit_records(self, part: _Part, commit: Commit, state: State) -> tuple[list[Item] | None, str | None]:
        """Claim, commit, release. Returns the items to be decided again (None: it is done), and the journal entry."""
        claims = [claim for claim in state.claims.values() if claim.owner != claim.expected]
        taken = [claim for claim in claims if claim.owner is not None]
        if taken and not all(await self._insist(lambda: self._registry.claim(taken))):
            self._counts["conflicts"] += 1
            return _items(part.work), None
        done = await self._insist(lambda: self._registry.commit(commit))
        if isinstance(done, Conflict):
            self._counts["conflicts"] += 1
            return _items(part.work), None
        if isinstance(done, Corrupt):
            return await self._bisect(part, done), None
        freed = [Claim(claim.endpoint, claim.expected, None) for claim in claims if claim.owner is None]
        if freed:
            await self._insist(lambda: self._registry.claim(freed))
        self._counts["commits"] += 1
        return None, done.entry

    async def _bisect(self, part: _Part, corrupt: Corrupt) -> list[Item]:
        """One key cannot be written: halve the batch until the command that needs it stands alone, and reject that."""
        work = part.work
        if len(work) == 1:
            item = work[0][0]
            refusal = Refusal("corrupt_record", f"{corrupt.key} holds another type: an operator must mend the key")
            log.error("A key holds what the bridge did not write.", organization=part.organization, key=corrupt.key)
            item.commands = (Reject(refusal.code, refusal.message),)
            return [item]
        half = len(work) // 2
        first, second = work[:half], work[half:]
        if first[-1][0] is second[0][0] and first[-1][0].held is not None:
            first[-1][0].held.waiting += 1
        await self._settle_items(_items(first))
        return _items(second)

    def _deliver(self, part: _Part, state: State, inputs: list[Held], entry_id: str | None) -> None:
        for item, refusal in part.rejections:
            self._counts[f"rejected:{refusal.code}"] += 1
            if item.reply is None:
                self._reporter.report(item.source, refusal, state.moment.now_ms)
        self._counts["published"] += len(part.outputs)
        group = self._settlement.group(part.organization, entry_id, inputs)
        self._broker.publish(part.outputs, group.settled)

    # Redis away: wait, and say so.

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask until Redis answers.

        Raises:
            Stopped: the line is to stop.
        """
        low, high = _BACKOFF_SECONDS
        is_away = False
        while True:
            try:
                answered = await ask()
            except RegistryUnavailable as error:
                if self._is_stopping:
                    raise Stopped from None
                if not is_away:
                    is_away = True
                    log.error("Redis is away: nothing is acknowledged until it answers.", reason=str(error))
                await asyncio.sleep(random.uniform(low / 2, low))
                low = min(low * 2, high)
            else:
                if is_away:
                    log.info("Redis answers again.")
                return answered


def _input(packet: mqtt5.PublishPacket, topic: str, payload: bytes) -> Input:
    connection = ""
    for name, value in packet.user_properties:
        if name == "connection":
            connection = value
    return Input(topic, payload, packet.retain, connection, packet.response_topic, packet.correlation_data)


def _first_wants(part: _Part) -> None:
    keys: dict[str, None] = {}
    for _, command in part.work:
        for key in first_keys(command):
            keys[key] = None
        owner = first_owner(command)
        if owner is not None:
            part.want_owners.add(owner)
    part.want.keys = list(keys)


def _want(part: _Part, missing: NotLoaded) -> None:
    want = part.want
    want.keys += [key for key in missing.keys if key not in want.keys]
    if missing.page is not None and missing.page not in want.pages:
        want.pages.append(Page(*missing.page))
    if missing.owner is not None:
        part.want_owners.add(missing.owner)
    if missing.foreign is not None:
        part.want_foreign.add(missing.foreign)


def _items(work: Sequence[tuple[Item, Command]]) -> list[Item]:
    """Return the items of a piece of work, each with the commands that stand there."""
    commands: dict[int, list[Command]] = {}
    items: dict[int, Item] = {}
    for item, command in work:
        items[id(item)] = item
        commands.setdefault(id(item), []).append(command)
    return [Item(item.organization, commands[key], item.reply, item.held, item.source) for key, item in items.items()]


def _inputs(part: _Part, moved: set[int]) -> tuple[list[Held], list[tuple[int, int]], list[Item]]:
    """Divide a part's inputs.

    Returns:
        The inputs that this commit settles, the identities to journal (of those that changed something and are
        complete), and the items whose commands were not all decided.
    """
    rest = _items(part.work[part.decided :])
    unfinished = {id(item.held) for item in rest if item.held is not None} | moved
    inputs: list[Held] = []
    identities: list[tuple[int, int]] = []
    seen: set[int] = set()
    changed = {id(part.work[index][0]) for index in part.changed}
    for item, _ in part.work[: part.decided]:
        held = item.held
        if held is None or id(held) in seen:
            continue
        seen.add(id(held))
        if id(held) in moved:
            continue  # nothing of it was done here
        if id(held) in unfinished:
            held.waiting += 1
        elif id(item) in changed:
            identities.append((held.packet_id, held.digest))
        inputs.append(held)
    return inputs, identities, rest


def _reply(reply: Reply, payload: bytes) -> Output:
    return Output(reply.topic, payload, correlation=reply.correlation)
