"""The line: decode, load, decide, route, commit, deliver, settle. Everything that changes anything goes through here.

One batch at a time is between load and commit; the next one collects meanwhile in the inbox. Only the line's edges wait
(Redis, the broker); decode, decide and route are the pure functions of `bridge.domain`.
"""

import asyncio
import contextlib
import random
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from time import monotonic, perf_counter
from typing import TypeVar

import structlog

from bridge.batch import Item, Part, items_of, parts_of
from bridge.desk import REDIS_IS_AWAY, STOPS, Desk
from bridge.domain.changes import commit_of
from bridge.domain.clock import iso_ms
from bridge.domain.commands import Command, Expire, Reject, Unfile
from bridge.domain.inputs import Input
from bridge.domain.intake import ECHO, Intake
from bridge.domain.journal import JournalEntry, copies, encode_entry
from bridge.domain.records import is_record_key
from bridge.domain.registry_topics import RegistryTopics
from bridge.domain.routing import Router
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.domain.values import (
    Claim,
    Commit,
    CommitAnswer,
    Committed,
    Conflict,
    Corrupt,
    Moment,
    Output,
    Receipt,
    Want,
)
from bridge.errors import Refusal, RegistryUnavailable, trail
from bridge.inbox import Arrival, Confirmed, Connected, Inbox, Mark, Order, Sweep, Walk
from bridge.meters import Meters
from bridge.outcomes import Outcomes
from bridge.ports import Broker, Registry
from bridge.reporter import Reporter
from bridge.settlement import Held, Settlement

log = structlog.get_logger("bridge.line")

MAXIMUM_BATCH = 1_000
MAXIMUM_WAVES = 6
SWEEP_BATCH = 100
MAXIMUM_TOLD = 10_000
MAXIMUM_CONFLICTS = 10
LATE_MS = 1_000  # of a tick: twice the time between two PINGREQs
MAXIMUM_JOURNAL_BYTES = 128 * 1024 * 1024  # Redis takes 512 MB in one argument, and is busy as long as it takes it
_BACKOFF_SECONDS = (0.05, 2.0)

_T = TypeVar("_T")


class Stopped(Exception):
    """The line was asked to stop while it waited for Redis. What it had in hand comes again after the next start."""


class Line:
    """Takes what arrives through the house.

    Args:
        registry: the records.
        broker: publishes and acknowledges.
        inbox: where arrivals wait.
        desk: where callers within this process wait.
        settlement: what is owed.
        outcomes: what follows from the broker's word.
        intake: decodes.
        router: addresses.
        rules: the configuration's numbers.
        home: the organization whose users need no claims; see `bridge.domain.owners`.
        registry_topics: shows the records to subscribers; None where none does.
        reporter: tells of rejections.
        instance: unique to this process, of letters and digits; makes event ids and batch tokens unique.
        new_epoch: makes an unguessable name for a new MQTT session.
        meters: what is counted and timed.

    Attributes:
        is_redis_away: it waits for Redis.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        broker: Broker,
        inbox: Inbox,
        desk: Desk,
        settlement: Settlement,
        outcomes: Outcomes,
        intake: Intake,
        router: Router,
        rules: Rules,
        home: str,
        registry_topics: RegistryTopics | None,
        reporter: Reporter,
        instance: str,
        new_epoch: Callable[[], str],
        meters: Meters,
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._inbox = inbox
        self._desk = desk
        self._settlement = settlement
        self._outcomes = outcomes
        self._intake = intake
        self._router = router
        self._rules = rules
        self._home = home
        self._registry_topics = registry_topics
        self._reporter = reporter
        self._instance = instance
        self._new_epoch = new_epoch
        self._meters = meters
        self._counts = meters.counts
        self._batches = 0
        self._commits = 0
        self._conflicts: Counter[tuple[str, str]] = Counter()
        self._is_sweeping = False
        self._clock_ms = 0
        self._epoch: str | None = None
        self._told_ms: dict[tuple[str, str], int] = {}
        self._corrupt: set[tuple[str, str]] = set()
        self._unreadable: set[tuple[str, str]] = set()
        self._refused: list[tuple[Input, Refusal, Receipt | None]] = []
        self._owed: list[tuple[str, str, JournalEntry]] = []
        self._walked: str | None = None  # how far the walk over all registry topics is; None: it is over
        self._is_stopping = False
        self._swept_ms = 0
        self._moved_at = monotonic()
        self._was_late = False
        self.is_redis_away = False

    @property
    def sweep_lag_ms(self) -> int:
        """How far, on the registry clock, the sweep is behind: 0 once nothing is due any more."""
        return self._clock_ms - self._swept_ms

    @property
    def silent_seconds(self) -> float:
        """How long ago the registry clock last moved, or had a reason to stand: usually about half a second."""
        return monotonic() - self._moved_at

    def owe(self, entries: Iterable[tuple[str, str, JournalEntry]]) -> None:
        """Take over (organization, entry id, entry) left in the journal; delivered before the first input."""
        self._owed.extend(entries)

    def stop(self) -> None:
        """Let `run` return once callers within this process are answered; the rest comes again after the next start."""
        self._is_stopping = True
        self._desk.shut(STOPS)
        self._inbox.wake()

    async def run(self) -> None:
        """Work until `stop`."""
        self._desk.open(self._inbox)
        try:
            while not self._is_stopping or self._inbox.has_orders:
                await self._inbox.wait()
                await self._broker.drained()
                await self._outcomes.drained()
                taken = self._take()
                if isinstance(taken, Connected):
                    await self._connected(taken)
                elif isinstance(taken, Confirmed):
                    await self._tick(taken)
                elif isinstance(taken, Sweep):
                    self._is_sweeping = False
                    await self._sweep()
                elif isinstance(taken, Walk):
                    await self._walk()
                elif taken:
                    self._meters.batch_inputs.observe(len(taken))
                    self._meters.wait.observe(self._inbox.waited_seconds)
                    items = [item for item in map(self._item, taken) if item is not None]
                    if self._refused:
                        await self._reject()
                    await self._settle_items(items)
                self._corrupt.clear()
                self._conflicts.clear()
        except Stopped:
            return

    async def finish(self) -> None:
        """After `run`: delete what is settled from the journal, or the next start would send it all again.

        Returns once nothing is left there. A copy joins the first one, whose PUBACK the broker has then not seen. What
        else arrives meanwhile is not acknowledged and comes again.
        """
        with contextlib.suppress(Stopped):
            while self._settlement.is_journaled:
                await self._inbox.wait()
                taken = self._take()
                if isinstance(taken, Connected):
                    await self._connected(taken)
                elif isinstance(taken, Confirmed):
                    await self._forget_settled(taken)
                elif not isinstance(taken, Sweep | Walk):
                    self._join(taken)

    def _join(self, arrivals: Iterable[Arrival | Order]) -> None:
        for arrival in arrivals:
            if not isinstance(arrival, Order) and arrival[1] is not None and arrival[0].is_copy:
                self._hold(arrival[1], arrival[0])

    def _take(self) -> Mark | list[Arrival | Order]:
        taken = self._inbox.take(MAXIMUM_BATCH)
        if self._inbox.has_room:
            self._broker.read_on()
        return taken

    # Marks.

    async def _connected(self, mark: Connected) -> None:
        if self._registry_topics is not None and (self._epoch is None or not mark.session_present):
            # Records may have changed while no bridge showed them, or the broker has lost what it kept.
            if self._walked is None:
                self._inbox.put(Walk())
            self._walked = ""
        epoch = self._epoch or await self._insist(lambda: self._registry.recall("session_epoch"))
        if epoch is None or not mark.session_present:
            if epoch is not None:
                log.warning(
                    "The broker has lost the bridge's session, and with it the inputs that waited there. See that it "
                    "keeps sessions over its restarts, and that no other client uses the bridge's client id."
                )
            epoch = self._new_epoch()
            await self._insist(lambda: self._registry.remember("session_epoch", epoch))
            self._settlement.forget_session()
        self._epoch = epoch
        # An outage is noted before the first input after it, so that a keepalive then counts as one after it. Nothing
        # expires yet: what waits at the broker comes before the first PINGRESP. However short it was, keepalives at
        # QoS 0 were lost in it.
        await self._move_clock(pause=True)
        self._swept_ms = self._swept_ms or self._clock_ms
        owed, self._owed = self._owed, []
        now_ms = (await self._insist(lambda: self._registry.load({}))).moment.now_ms if owed else 0
        for organization, entry_id, entry in owed:
            inputs = self._settlement.recovered(entry.inputs if entry.session_epoch == epoch else ())
            group = self._settlement.group(organization, entry_id, inputs)
            again = copies(entry_id, entry, now_ms) + await self._show(organization, entry.shown)
            self._counts["redelivered"] += sum(output.copies for output in again)
            self._broker.publish(again, self._outcomes.expect(group, again))

    async def _show(self, organization: str, keys: list[str]) -> list[Output]:
        """Return what the registry topics of these subjects are to show now."""
        if self._registry_topics is None or not keys:
            return []
        loading = await self._insist(lambda: self._registry.load({organization: Want(keys)}))
        state = self._state(organization, loading.moment)
        state.add(loading.organizations[organization], {})
        return self._registry_topics.outputs(state, keys, self._broker.largest_packet_bytes)

    async def _walk(self) -> None:
        """Write some more of all registry topics."""
        cursor, found = await self._insist(lambda: self._registry.walk(self._walked or ""))
        keys: dict[str, list[str]] = {}
        for organization, key in found:
            keys.setdefault(organization, []).append(key)
        for organization in keys:
            outputs = await self._show(organization, keys[organization])
            self._counts["published"] += sum(output.copies for output in outputs)
            self._broker.publish(outputs, self._settlement.group(organization, None, []).settled)
        self._walked = cursor or None
        if cursor:
            self._inbox.put(Walk())

    async def _forget_settled(self, mark: Confirmed) -> None:
        entries = self._settlement.confirmed(mark.connection, mark.acknowledged)
        if entries:
            await self._insist(lambda: self._registry.settle(entries))

    async def _tick(self, mark: Confirmed) -> None:
        await self._forget_settled(mark)
        if not mark.caught_up:
            # Signs of life may wait at the broker: the clock stands until the bridge has heard them.
            self._moved_at = monotonic()
            return
        before_ms = self._clock_ms
        await self._move_clock(pause=mark.lost)
        is_late = self._clock_ms - before_ms > LATE_MS
        if is_late and not self._was_late:
            # Whatever held this PINGRESP up may have held up signs of life, too: they have until the next one.
            self._was_late = True
            return
        self._was_late = is_late
        await self._sweep()

    async def _move_clock(self, *, pause: bool) -> None:
        self._clock_ms = await self._insist(lambda: self._registry.tick(pause=pause))
        self._moved_at = monotonic()

    async def _sweep(self) -> None:
        clock_ms = self._clock_ms
        due = await self._insist(lambda: self._registry.due(SWEEP_BATCH))
        if len(due) < SWEEP_BATCH:
            self._swept_ms = clock_ms
        if not due:
            return
        await self._settle_items([Item(organization, (Expire(key, self._clock_ms),)) for organization, key in due])
        if len(due) == SWEEP_BATCH and not self._is_sweeping:
            self._is_sweeping = True
            self._inbox.put(Sweep())

    # Decode.

    def _item(self, arrival: Arrival | Order) -> Item | None:
        if isinstance(arrival, Order):
            return Item(arrival.organization, (arrival.command,), arrival.waiter)
        inbound, receipt = arrival
        try:
            decoded = self._intake.decode(inbound)
        except Refusal as refusal:
            self._refused.append((inbound, refusal.with_traceback(None), receipt))
            return None
        except Exception as error:
            log.error("A codec failed: its input is rejected. This is a bug.", trail=trail(error))
            reason = f"the bridge failed to read it ({type(error).__name__}), see its log"
            self._refused.append((inbound, Refusal("invalid_field", reason), receipt))
            return None
        held = None
        if receipt is not None:
            held = self._hold(receipt, inbound)
            if held is None:
                return None
        if decoded.commands is ECHO:
            self._hear_echo()
        return Item(decoded.organization, decoded.commands, decoded.reply, held, inbound)

    async def _reject(self) -> None:
        """Tell of what could not be read, and let it be acknowledged: that is all there is to do for it.

        It takes no part in the batch, so that a flood of it costs the others as little as can be. A copy of it with DUP
        cannot be read either.
        """
        refused, self._refused = self._refused, []
        now_ms = (await self._insist(lambda: self._registry.load({}))).moment.now_ms
        for inbound, refusal, _ in refused:
            self._counts[f"rejected:{refusal.code}"] += 1
            self._reporter.report(inbound, refusal, now_ms)
        self._broker.acknowledge([receipt for _, _, receipt in refused if receipt is not None])

    def _hear_echo(self) -> None:
        if not self._counts["echoes"]:
            log.error(
                "The bridge hears what it published itself: somebody knows its MQTT client id and has subscribed in "
                "its name. Stop it, remove that id (HDEL eb:facts client_id, or mqtt.client_id), and start it."
            )
        self._counts["echoes"] += 1

    def _hold(self, receipt: Receipt, inbound: Input) -> Held | None:
        digest = zlib.crc32(inbound.payload, zlib.crc32(inbound.topic.encode()))
        return self._settlement.hold(receipt, digest, inbound.is_copy)

    # Load and decide.

    async def _settle_items(self, items: list[Item]) -> None:
        """Take items through the rest of the line, in as many batches as it needs."""
        while items:
            items = await self._batch(items)

    async def _batch(self, items: list[Item]) -> list[Item]:
        """Take items through the line once; returns those that must go again, in order."""
        self._outcomes.forget_kept()
        parts = list(parts_of(items, self._broker.largest_packet_bytes).values())
        for wave in count(1):
            # Without anything decided another try would end as this one.
            pending = [part for part in parts if not part.is_decided and (wave <= MAXIMUM_WAVES or not part.decided)]
            if not pending:
                break
            began = perf_counter()
            await self._load(pending)
            loaded = perf_counter()
            for part in pending:
                part.decide(self._router)
            self._meters.load.observe(loaded - began)
            self._meters.decide.observe(perf_counter() - loaded)
        rest: list[Item] = []
        for part in parts:
            part.cut()
            rest += await self._commit(part)
        return rest

    async def _load(self, parts: Sequence[Part]) -> None:
        wants: dict[str, Want] = {}
        owners: set[str] = set()
        for part in parts:
            part.want(wants, owners)
        loading = await self._insist(lambda: self._registry.load(wants, owners))
        for part in parts:
            if part.state is None:
                part.state = self._state(part.organization, loading.moment)
            part.take(loading)

    def _state(self, organization: str, moment: Moment) -> State:
        self._batches += 1
        return State(
            organization,
            moment,
            self._rules,
            home=self._home,
            id_prefix=f"{moment.now_ms:011x}{self._batches & 0xFFFF:04x}",
            id_suffix="-" + self._instance,
            timestamp=iso_ms(moment.now_ms),
            told_ms=self._told_ms,
            in_hand=self._outcomes.in_hand,
            corrupt=[key for name, key in self._corrupt if name == organization],
        )

    # Commit, deliver.

    async def _commit(self, part: Part) -> list[Item]:
        """Commit and deliver what was decided; returns the items that must go again, in order."""
        state = part.state
        if state is None:
            return []
        inputs, identities = part.inputs()
        self._commits += 1
        commit = commit_of(state, f"{self._instance}:{self._commits}")
        entry: str | None = None
        journaled = part.journaled()
        topics = self._registry_topics
        shown = topics.changed(state) if topics is not None else []
        if journaled or identities or shown:
            commit.journal = encode_entry(JournalEntry(self._epoch or "", identities, journaled, shown))
        if commit.journal or commit.writes or commit.members or commit.deadlines or commit.floor:
            done: CommitAnswer = Corrupt("")
            if len(commit.journal or b"") <= MAXIMUM_JOURNAL_BYTES:
                done = await self._commit_records(commit, state)
            if isinstance(done, Conflict):
                done = self._conflict(part.organization, done)
            if isinstance(done, Conflict):
                return items_of(part.work)
            if isinstance(done, Corrupt):
                if self._is_new_fault(part.organization, done.key):
                    return items_of(part.work)  # known now: only the commands that need this record are rejected
                return await self._bisect(part, done)
            entry = done.entry
        if topics is not None:
            part.outputs += topics.outputs(state, shown, self._broker.largest_packet_bytes)
        part.hold_rest(inputs)
        self._deliver(part, state, inputs, entry)
        unfinished = dict.fromkeys((*state.unfinished, *part.unfinished))
        first = [Item(part.organization, (Expire(key, self._clock_ms),)) for key in unfinished]
        return first + part.moved + part.rest()

    async def _commit_records(self, commit: Commit, state: State) -> CommitAnswer:
        """Claim new endpoint ids, commit, release those that ended. An id that somebody else took is a conflict."""
        claims = [claim for claim in state.claims.values() if claim.owner != claim.expected]
        taken = [claim for claim in claims if claim.owner is not None]
        if taken:
            for claim, is_taken in zip(taken, await self._insist(lambda: self._registry.claim(taken)), strict=True):
                if not is_taken:
                    return Conflict(f"endpoint-owner:{claim.endpoint}")
            if not await self._still_stands(state.foreign):
                # The user whom an id names has it since: see `bridge.domain.owners`.
                back = [Claim(endpoint, owner, expected) for endpoint, expected, owner in taken]
                await self._insist(lambda: self._registry.claim(back))
                return Conflict("endpoint-owner")
        began = perf_counter()
        done = await self._insist(lambda: self._registry.commit(commit))
        self._meters.commit.observe(perf_counter() - began)
        if isinstance(done, Committed):
            self._counts["commits"] += 1
            freed = [claim for claim in claims if claim.owner is None]
            if freed:
                await self._insist(lambda: self._registry.claim(freed))
        return done

    async def _still_stands(self, foreign: Mapping[tuple[str, str], bytes | None]) -> bool:
        """Tell whether other organizations' records are what the batch was decided by."""
        wants: dict[str, Want] = {}
        for organization, key in foreign:
            wants.setdefault(organization, Want([])).keys.append(key)
        if not wants:
            return True
        loading = await self._insist(lambda: self._registry.load(wants))
        return all(loading.organizations[name].records[key] == raw for (name, key), raw in foreign.items())

    def _conflict(self, organization: str, conflict: Conflict) -> Conflict | Corrupt:
        """A record changed meanwhile: decide again; where that never ends, the key is at fault."""
        self._counts["conflicts"] += 1
        self._conflicts[organization, conflict.key] += 1
        if self._conflicts[organization, conflict.key] < MAXIMUM_CONFLICTS:
            return conflict
        return Corrupt(conflict.key)

    async def _bisect(self, part: Part, corrupt: Corrupt) -> list[Item]:
        """One key cannot be written: halve the batch until the command that needs it stands alone, and reject that."""
        work = part.work
        if len(work) == 1:
            item, command = work[0]
            if corrupt.key:
                reason = f"{corrupt.key} holds another type: an operator must mend or delete the key"
            else:
                reason = "the registry does not take what it makes: it is too large"
            log.error("A command cannot be committed: it is rejected.", organization=part.organization, reason=reason)
            again: Command = Reject("corrupt_record", reason)
            if isinstance(command, Expire):
                again = Unfile(command.key)
            return [Item(item.organization, (again,), item.reply, item.held, item.inbound, item.is_part)]
        half = len(work) // 2
        first, second = work[:half], work[half:]
        held = first[-1][0].held
        items = items_of(first)
        if held is not None and held is second[0][0].held:
            held.waiting += 1
            items[-1].is_part = True
        await self._settle_items(items)
        return items_of(second)

    def _is_new_fault(self, organization: str, key: str) -> bool:
        """Note a record's key that holds another type; False where it is none, or was noted and is in the way still."""
        fault = (organization, key)
        if not is_record_key(key) or fault in self._corrupt:
            return False
        log.error("A key holds what the bridge did not write.", organization=organization, key=key)
        self._corrupt.add(fault)
        return True

    def _deliver(self, part: Part, state: State, inputs: list[Held], entry: str | None) -> None:
        for item, refusal in part.rejections:
            self._counts[f"rejected:{refusal.code}"] += 1
            if item.reply is None:
                self._reporter.report(item.inbound, refusal, state.moment.now_ms)
        for code in part.anomalies:
            self._counts[f"anomalies:{code}"] += 1
        for waiter, answer in part.answers:
            if isinstance(answer, Refusal):
                waiter.refuse(answer)
            else:
                waiter.answer(answer)
        if part.unsendable:
            self._counts["refused_by_broker"] += sum(output.copies for output in part.unsendable)
            self._reporter.report_unsendable(part.unsendable, part.largest_packet_bytes, state.moment.now_ms)
        if state.told:
            self._told_ms.update(state.told)
            if len(self._told_ms) > MAXIMUM_TOLD:
                latest = sorted(self._told_ms.items(), key=lambda told: told[1])[-MAXIMUM_TOLD // 2 :]
                self._told_ms = dict(latest)
        if state.unreadable:
            self._counts["unreadable"] += len(state.unreadable)
            for key in sorted(state.unreadable):
                if (part.organization, key) not in self._unreadable and len(self._unreadable) < MAXIMUM_TOLD:
                    self._unreadable.add((part.organization, key))
                    log.error("A record cannot be read: it is passed over.", organization=part.organization, key=key)
        self._counts["published"] += sum([output.copies for output in part.outputs])
        group = self._settlement.group(part.organization, entry, inputs)
        follow = self._outcomes.expect(group, part.outputs, part.asked, state.sends)
        began = perf_counter()

        def settled(reason_codes: list[int]) -> None:
            self._meters.deliver.observe(perf_counter() - began)
            follow(reason_codes)

        self._broker.publish(part.outputs, settled if part.outputs else follow)

    # Redis away: wait, and say so.

    async def _insist(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask until Redis answers. Each reason why it does not is logged once.

        Raises:
            Stopped: the line is to stop.
        """
        low, high = _BACKOFF_SECONDS
        reasons: set[str] = set()
        while True:
            try:
                if self.is_redis_away:
                    # Meanwhile callers were turned away. What waited here counts as a sign of life after the outage.
                    self._clock_ms = await self._registry.tick(pause=True)
                answered = await ask()
            except RegistryUnavailable as error:
                if not self.is_redis_away:
                    self.is_redis_away = True
                    self._desk.close(REDIS_IS_AWAY)
                if self._is_stopping:
                    raise Stopped from None
                if str(error) not in reasons:
                    reasons.add(str(error))
                    log.error("Redis is away: nothing is acknowledged until it answers.", reason=str(error))
                await asyncio.sleep(random.uniform(low / 2, low))
                low = min(low * 2, high)
            else:
                if self.is_redis_away:
                    self.is_redis_away = False
                    if not self._is_stopping:
                        self._desk.open(self._inbox)
                    log.info("Redis answers again.")
                return answered
