"""One organization's part of a batch: its work, what it needs loaded, how far it is decided, and what came of it.

Nothing here waits: the line loads and commits, a part decides.
"""

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from bridge.domain.commands import Command, Expire, KeepEndpoint
from bridge.domain.decide import UNJOURNALED, decide, want_first
from bridge.domain.decisions import NOTHING, Decision, Later
from bridge.domain.inputs import Input
from bridge.domain.intake import Reply, answer, error_answer
from bridge.domain.keepalives import renew
from bridge.domain.loaded import CorruptRecord, NotLoaded
from bridge.domain.routing import Router
from bridge.domain.state import CommitFirst, Elsewhere, State
from bridge.domain.values import Loading, Output, Page, Want
from bridge.errors import Refusal, trail
from bridge.outcomes import Asked
from bridge.ports import Waiter
from bridge.settlement import Held

log = structlog.get_logger("bridge.batch")


# A batch ends early beyond these, so that no commit grows beyond what Redis takes in one request.
MAXIMUM_COPIES = 10_000
MAXIMUM_BYTES = 8 * 1024 * 1024
# Below the message_size_limit of the shipped mosquitto.conf.
MAXIMUM_ANSWER_BYTES = 900_000
# What topic, ids and headers add to a payload is counted only where it could matter: hardly any configuration has
# topics near this length, and the session refuses what slips through.
_ROOM_BESIDE_PAYLOAD_BYTES = 4_096


class Item(msgspec.Struct, eq=False, gc=False):
    """One input's commands on their way through the line.

    Attributes:
        organization: whose records they concern.
        commands: those not decided yet, in order.
        reply: where the answer goes: to a topic, or to somebody within this process.
        held: the QoS 1 input to acknowledge.
        inbound: what came by MQTT, for the report of a rejection; None: it did not.
        is_part: more commands of the same input come in a later commit.
    """

    organization: str
    commands: Sequence[Command]
    reply: Reply | Waiter | None = None
    held: Held | None = None
    inbound: Input | None = None
    is_part: bool = False


class Part:
    """See the module's docstring.

    Attributes:
        work: every command with its item, in order; the first ``decided`` of them are.
        state: the unit of work, made by the line with the first load.
        outputs: the messages that the decisions make, in order.
        asked: who is answered once the broker has settled them.
        answers: who within this process is answered once all is committed, and with what.
        rejections: what could not be taken, and why.
        anomalies: codes of what contradicted itself and was taken all the same.
        unsendable: outputs that the broker would not take, being too large; neither journaled nor published.
        moved: items that concern another organization.
        unfinished: records with work left over, to go before everything else.
    """

    def __init__(self, organization: str, largest_packet_bytes: int) -> None:
        self.organization = organization
        self.largest_packet_bytes = largest_packet_bytes
        self._unchecked_bytes = largest_packet_bytes - _ROOM_BESIDE_PAYLOAD_BYTES
        self.work: list[tuple[Item, Command]] = []
        self.decided = 0
        self.state: State | None = None
        self.outputs: list[Output] = []
        self.asked: list[Asked] = []
        self.answers: list[tuple[Waiter, object]] = []
        self.unsendable: list[Output] = []
        self.rejections: list[tuple[Item, Refusal]] = []
        self.anomalies: list[str] = []
        self.moved: list[Item] = []
        self.unfinished: list[str] = []
        self._durable: set[int] = set()  # of the items of which something changed, or could have
        self._passing: list[tuple[Item, int, int]] = []  # what told outputs from..to, and could not change anything
        self._bytes = self._copies = 0
        self._is_cut = False
        self._keys: dict[str, None] = {}
        self._pages: dict[Page, None] = {}
        self._owners: set[str] = set()
        self._foreign: set[tuple[str, str]] = set()

    def add(self, item: Item) -> None:
        """Append an item, and want what its commands certainly need."""
        for command in item.commands:
            self.work.append((item, command))
            want_first(command, self._keys, self._owners, self._pages)

    @property
    def is_decided(self) -> bool:
        """All is decided, or the batch ends before what is not."""
        return self._is_cut or self.decided == len(self.work)

    def cut(self) -> None:
        """End the batch before what is not decided."""
        self._is_cut = True

    def want(self, wants: dict[str, Want], owners: set[str]) -> None:
        """Add what is missing to the next load trip's wants."""
        want = wants.setdefault(self.organization, Want())
        want.keys = [*want.keys, *self._keys]
        want.pages = [*want.pages, *self._pages]
        for organization, key in self._foreign:
            foreign = wants.setdefault(organization, Want())
            foreign.keys = [*foreign.keys, key]
        owners |= self._owners

    def take(self, loading: Loading) -> None:
        """Take what a load trip brought."""
        assert self.state is not None
        self.state.add(loading.organizations[self.organization], loading.owners, loading.window)
        for organization, key in self._foreign:
            self.state.foreign[organization, key] = loading.organizations[organization].records[key]
        self._keys, self._pages, self._owners, self._foreign = {}, {}, set(), set()

    def decide(self, router: Router) -> None:
        """Decide in order until something is missing; what follows is tried only to learn what else is."""
        state, outputs = self.state, self.outputs
        assert state is not None
        is_blocked = False
        for index in range(self.decided, len(self.work)):
            item, command = self.work[index]
            if type(command) is KeepEndpoint and not is_blocked and item.held is None and renew(command, state):
                self.decided = index + 1
                continue
            reply = item.reply
            waiter = None if reply is None or isinstance(reply, Reply) else reply
            if waiter is not None and not waiter.is_open:
                # It was told that nothing may have been done, and hears of it no more.
                if not is_blocked:
                    self.decided = index + 1
                continue
            first = len(outputs)
            decision = NOTHING
            try:
                decided = self._try(item, command, state, router)
                if decided is None:
                    is_blocked = True
                else:
                    decision = decided
            except CommitFirst as needed:
                self._undo(state, first)
                if not is_blocked:
                    self.cut()
                    if needed.key is not None:
                        self.unfinished.append(needed.key)
                return
            except Elsewhere as elsewhere:
                self._undo(state, first)
                if not is_blocked:
                    self.moved.append(Item(elsewhere.organization, (command,), reply, item.held, item.inbound))
                    self.decided = index + 1
                continue
            except Exception as error:
                self._undo(state, first)
                decision = Decision(refusal=_refusal(error, command, is_told=not is_blocked))
            if is_blocked:
                self._undo(state, first)
                continue
            self.decided = index + 1
            self.anomalies += decision.anomalies
            refusal = decision.refusal
            if refusal is not None:
                state.drop()
                self._refuse(item, command, refusal, state)
            is_durable = state.keep() or (item.held is not None and type(command) not in UNJOURNALED)
            if is_durable:
                self._durable.add(id(item))
            if len(outputs) > first:
                self._count(first)
            if not is_durable and len(outputs) > first:
                self._passing.append((item, first, len(outputs)))
            if isinstance(decision.answer, Later):
                self.asked.append(Asked(decision.answer, first, len(outputs) - first, reply, item.held))
            elif waiter is not None:
                self.answers.append((waiter, decision.answer if refusal is None else refusal))
            if state.unfinished or self._copies > MAXIMUM_COPIES or self._bytes > MAXIMUM_BYTES:
                self.cut()
                return

    def _undo(self, state: State, first: int) -> None:
        """Take back what a command changed, and what it would tell: the outputs from ``first`` on."""
        state.drop()
        del self.outputs[first:]

    def _count(self, first: int) -> None:
        """Count bytes and copies of the outputs from ``first`` on, and take out what the broker would not take."""
        size_bytes = copies = 0
        for output in self.outputs[first:]:
            size_bytes += len(output.payload)
            copies += output.copies
        if size_bytes > self._unchecked_bytes:
            self.outputs[first:] = self._sendable(self.outputs[first:])
        self._bytes += size_bytes
        self._copies += copies

    def _try(self, item: Item, command: Command, state: State, router: Router) -> Decision | None:
        """Decide and route one command; None where something was missing, which is wanted now."""
        is_complete = True
        outputs = self.outputs
        try:
            decision = decide(command, state)
        except NotLoaded as missing:
            self._miss(missing)
            return None
        for emission in decision.emissions:
            try:
                router.route(emission, state, outputs)
            except NotLoaded as missing:  # go on, so that all that the audiences miss comes in one wave
                self._miss(missing)
                is_complete = False
        if decision.verbatim is not None:
            first = len(outputs)
            router.pass_on(decision.verbatim, state, outputs)
            if len(decision.verbatim.payload) > self._unchecked_bytes:
                for output in outputs[first:]:
                    self._require_sendable(output, "the event", "make it shorter")
        if isinstance(item.reply, Reply) and not isinstance(decision.answer, Later) and decision.refusal is None:
            payload = answer(decision.answer)
            if len(payload) > MAXIMUM_ANSWER_BYTES:
                raise Refusal("too_many", f"the answer has {len(payload)} bytes, too many for one message: pass limit")
            outputs.append(_reply(item.reply, payload))
            self._require_sendable(outputs[-1], "the answer", "pass limit")
        return decision if is_complete else None

    def _require_sendable(self, output: Output, what: str, remedy: str) -> None:
        if output.packet_bytes > self.largest_packet_bytes:
            raise Refusal(
                "too_large",
                f"{what} has {len(output.payload)} bytes, the broker takes packets of {self.largest_packet_bytes}: "
                f"{remedy}, or raise the broker's max_packet_size",
            )

    def _sendable(self, outputs: list[Output]) -> list[Output]:
        sendable: list[Output] = []
        for output in outputs:
            (sendable if output.packet_bytes <= self.largest_packet_bytes else self.unsendable).append(output)
        return sendable

    def _refuse(self, item: Item, command: Command, refusal: Refusal, state: State) -> None:
        if refusal.code == "corrupt_record" and isinstance(command, Expire):
            # It would be due again at every tick, and many such would leave the sweep no room for others.
            state.unfile(command.key)
        self.rejections.append((item, refusal))
        if isinstance(item.reply, Reply):
            self.outputs.append(_reply(item.reply, error_answer(refusal)))

    def _miss(self, missing: NotLoaded) -> None:
        self._keys.update(dict.fromkeys(missing.keys))
        self._pages.update(dict.fromkeys(missing.pages))
        self._owners.update(missing.owners)
        if missing.foreign is not None:
            self._foreign.add(missing.foreign)

    def inputs(self) -> tuple[list[Held], list[tuple[int, int]]]:
        """Return the inputs that this part's commit settles, and the identities to journal.

        Those are of the complete inputs that could have changed something, also where they did not: decided again after
        a crash, behind later ones that are not, they would. One that moved elsewhere is not settled here.
        """
        left = {id(item.held) for item, _ in self.work[self.decided :]}
        moved = {id(item.held) for item in self.moved}
        durable = self._durable
        settled: dict[int, Held] = {}
        identities: list[tuple[int, int]] = []
        for item, _ in self.work[: self.decided]:
            held = item.held
            if held is None:
                continue
            identity = id(held)
            if identity in settled or identity in moved:
                continue
            settled[identity] = held
            if identity not in left and not item.is_part and id(item) in durable:
                identities.append((held.packet_id, held.digest))
        return list(settled.values()), identities

    def journaled(self) -> list[Output]:
        """Return the outputs to journal: all those of the inputs that changed something, or could have.

        A copy of such an input joins the journal entry and is not decided again, so all that it told must be there.
        """
        journaled: list[Output] = []
        start = 0
        for item, first, end in self._passing:
            if id(item) not in self._durable:
                journaled += self.outputs[start:first]
                start = end
        return journaled + self.outputs[start:] if start else self.outputs

    def hold_rest(self, settled: Sequence[Held]) -> None:
        """Once committed: let those of ``settled`` that have commands left over wait for these too."""
        left = {id(item.held) for item, _ in self.work[self.decided :]}
        for held in settled if left else ():
            if id(held) in left:
                held.waiting += 1

    def rest(self) -> list[Item]:
        """Return the items that were not decided, with the commands left of them."""
        return items_of(self.work[self.decided :])


def _refusal(error: Exception, command: Command, *, is_told: bool) -> Refusal:
    """Return what becomes of a command that failed; a bug is logged, where ``is_told``."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, CorruptRecord):
        return Refusal("corrupt_record", str(error))
    if is_told:
        log.error(
            "A rule failed: its command is rejected. This is a bug.", command=type(command).__name__, trail=trail(error)
        )
    return Refusal("corrupt_record", f"the bridge failed on it ({type(error).__name__}), see its log")


def items_of(work: Sequence[tuple[Item, Command]]) -> list[Item]:
    """Return the items of a piece of work, each with the commands that stand there."""
    commands: dict[int, list[Command]] = {}
    items: dict[int, Item] = {}
    for item, command in work:
        items[id(item)] = item
        commands.setdefault(id(item), []).append(command)
    return [
        Item(item.organization, commands[key], item.reply, item.held, item.inbound, item.is_part)
        for key, item in items.items()
    ]


def parts_of(items: Sequence[Item], largest_packet_bytes: int) -> Mapping[str, Part]:
    """Divide items by organization, in order; no output shall make a larger packet."""
    parts: dict[str, Part] = {}
    for item in items:
        part = parts.get(item.organization)
        if part is None:
            part = parts[item.organization] = Part(item.organization, largest_packet_bytes)
        part.add(item)
    return parts


def _reply(reply: Reply, payload: bytes) -> Output:
    return Output(reply.topic, payload, correlation=reply.correlation)
