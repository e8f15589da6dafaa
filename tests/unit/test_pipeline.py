"""The line: what is acknowledged when, what comes again, and what one fault leaves to the others."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, repeat
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from bridge import pipeline
from bridge.adapters.memory import MemoryRegistry, Ranks
from bridge.domain.inputs import Input
from bridge.domain.intake import Decoded
from bridge.domain.journal import decode_entry
from bridge.domain.rules import Rules
from bridge.domain.values import Claim, Commit, CommitAnswer, Conflict, Corrupt, Write
from bridge.errors import RegistryUnavailable
from bridge.inbox import Sweep
from bridge.pipeline import MAXIMUM_BATCH, SWEEP_BATCH
from tests.unit.world import REJECTED, RpcError, World, message, told, types_of


class Meddling(MemoryRegistry):
    """A registry in which something happens just before a commit, or in place of it."""

    def __init__(self) -> None:
        super().__init__()
        self.before_commit: list[Callable[[Commit], CommitAnswer | None]] = []

    async def commit(self, commit: Commit) -> CommitAnswer:
        if self.before_commit:
            answer = self.before_commit.pop(0)(commit)
            if answer is not None:
                return answer
        return await super().commit(commit)

    def touch(self, key: str) -> None:
        """Another bridge writes the record as it is, with a newer version."""
        values = self.organizations["default"]
        stored = values[key]
        assert isinstance(stored, bytes)
        version, _, rest = stored.partition(b":")
        values[key] = b"%d:%b" % (int(version) + 1, rest)


def meddled(*meddlers: Callable[[Commit], CommitAnswer | None], **rest: Any) -> tuple[World, Meddling]:
    registry = Meddling()
    world = World(registry=registry, **rest)
    return world, registry


def wrapper(*events: object) -> dict[str, object]:
    return {"events": list(events)}


JOIN = {"type": "JoinSessionEvent"}
STOP = {"type": "StopSessionEvent"}
CROWD = [f"u{number:03}" for number in range(450)]


# Acknowledging.


def test_an_input_is_acknowledged_when_its_outputs_are_and_not_before() -> None:
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.broker.settles = False
    world.online("ann")
    [receipt] = world.receipts[-1:]
    assert not receipt.done
    assert world.settlement.undelivered == 1
    world.broker.settle()
    assert receipt.done
    assert world.settlement.undelivered == 0


def test_an_input_without_effect_is_acknowledged_at_once() -> None:
    world = World()
    world.broker.settles = False
    world.say("presence/users/ann", {"type": "USER_UPDATED"})
    world.online("ann")
    world.offline("nobody")
    assert world.all_acknowledged


@pytest.mark.parametrize("code", [0x10, 0x80, 0x97])
def test_any_puback_settles_and_refusals_are_counted(code: int) -> None:
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.broker.settles = False
    world.online("ann")
    world.broker.settle(code)
    assert world.all_acknowledged
    assert world.counts["refused_by_broker"] == (code >= 0x80)


def test_qos_0_needs_no_acknowledgement() -> None:
    world = World()
    world.say("presence/users/ann", "online", qos=0)
    assert world.call("online_users") == ["ann"]
    assert len(world.broker.acknowledged) == 1  # the call's


@pytest.mark.parametrize("events", [[], [{}], [5], [{"type": "?"}] * 3])
def test_a_wrapper_of_nothing_useful_is_acknowledged(events: list[object]) -> None:
    world = World()
    world.say("presence/users/ann", wrapper(*events))
    world.say("sessions/s1", wrapper(*events))
    assert world.all_acknowledged


def test_the_journal_holds_what_is_owed_until_the_broker_has_surely_seen_the_pubacks() -> None:
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.tick()
    assert world.journal() == {}
    world.broker.settles = False
    world.online("ann")
    [(_, batch)] = world.journal().values()
    entry = decode_entry(batch)
    assert entry.session_epoch == "i1-epoch-1"
    assert [packet_id for packet_id, _ in entry.inputs] == [world.receipts[-1].packet_id]
    assert [output.topic for output in entry.outputs] == ["users/endpoints/eve1"]
    world.tick()
    assert len(world.journal()) == 1
    world.broker.settle()
    world.inbox.confirmed(world.connection, world.receipts[-1].number - 1, True)  # a PINGRESP sent before the PUBACK
    world.work()
    assert len(world.journal()) == 1
    world.tick()
    assert world.journal() == {}


def test_questions_skip_the_journal() -> None:
    world = World()
    world.call("online_users")
    world.say("presence/users/ann", {"type": "USER_UPDATED"})
    world.say("presence/users/ann", b"no JSON")
    assert world.journal() == {}
    assert world.counts["commits"] == 0


def test_what_changes_nothing_now_but_could_later_is_not_decided_again_after_a_crash() -> None:
    world = World()
    world.broker.settles = False
    messages = [message("presence/users/bob", "online"), message("presence/users/ann", "offline")]
    messages += [message("presence/users/ann", "online")]
    world.feed(*messages)
    entries = [decode_entry(batch) for _, batch in world.journal().values()]
    # `offline` changed nothing; decided again behind an `online` that is not, it would have the last word.
    assert sum(len(entry.inputs) for entry in entries) == 3


def test_all_outputs_of_an_input_that_changed_something_survive_a_crash() -> None:
    world = World()
    world.register("eve", "eve1")
    world.register("ann", "ann1")
    world.tick()
    world.broker.settles = False
    leave = {"type": "LeaveSessionEvent", "leavingUsers": ["eve"]}  # of no session: no change, but a relay
    world.feed(message("sessions/s9", wrapper(leave, {**JOIN, "sessionUsers": ["ann"]})))
    [(_, batch)] = world.journal().values()
    types = [json.loads(output.payload)["type"] for output in decode_entry(batch).outputs]
    # The redelivered copy of this input joins the journal's; it would not be decided again.
    assert types == ["LeaveSessionEvent", "JoinSessionEvent", "UserPresenceChangedEvent"]


# DUP.


def test_a_copy_joins_the_input_in_the_line() -> None:
    world = World()
    world.arrive(message("presence/users/ann", "online", packet_id=7))
    world.inbox.connected(2, True)
    world.connection = 2
    world.arrive(message("presence/users/ann", "online", packet_id=7, duplicate=True))
    world.work()
    assert world.counts["joined"] == 1
    assert world.counts["commits"] == 1
    # The PUBACK answers the delivery of the present connection.
    assert world.broker.acknowledged[-1].connection == 2


def test_a_copy_joins_a_delivered_input() -> None:
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.broker.settles = False
    world.say("presence/users/ann", "online", packet_id=7)
    world.connect()
    copy = message("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert told(world.feed(copy)) == {}
    assert not world.receipts[-1].done
    world.broker.settle()
    assert world.receipts[-1].done
    world.connect()
    assert told(world.feed(copy)) == {}  # delivered and acknowledged, but the PUBACK was lost
    assert world.receipts[-1].done
    assert world.counts["joined"] == 2


def test_a_known_packet_id_without_dup_is_a_new_message() -> None:
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.broker.settles = False
    world.say("presence/users/ann", "online", packet_id=7)
    assert types_of(world.say("presence/users/ann", "offline", packet_id=7)["eve1"]) == ["UserPresenceChangedEvent"]
    assert types_of(world.say("presence/users/ann", "online", packet_id=7)["eve1"]) == ["UserPresenceChangedEvent"]
    world.broker.settle()
    assert world.all_acknowledged


def test_a_copy_of_something_else_is_a_new_message() -> None:
    world = World()
    world.say("presence/users/ann", "online", packet_id=7)
    world.say("presence/users/bob", "online", packet_id=7, duplicate=True)
    assert world.call("online_users") == ["ann", "bob"]
    assert world.counts["joined"] == 0


def test_an_unknown_copy_is_decided() -> None:
    world = World()
    world.say("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert world.call("online_users") == ["ann"]


def test_after_the_confirmation_a_packet_id_means_nothing_more() -> None:
    world = World()
    world.say("presence/users/ann", "online", packet_id=7)
    world.tick()
    world.offline("ann")
    world.say("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert world.call("online_users") == ["ann"]


def test_a_lost_session_ends_all_packet_ids() -> None:
    world = World()
    world.broker.settles = False
    world.say("presence/users/ann", "online", packet_id=7)
    world.say("presence/users/ann", "offline", packet_id=8)
    world.connect(session_present=False)
    world.say("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert world.counts["joined"] == 0
    assert "user:ann" in world.stored()


@pytest.mark.parametrize("is_new_process", [False, True])
def test_a_lost_session_is_said_and_survived(is_new_process: bool) -> None:
    world = World()
    world.register("eve", "eve1", 86_400, watch=["*"])
    world.tick()
    with capture_logs() as lines:
        if is_new_process:
            world = World(registry=world.registry, instance="i2")
        world.connect(session_present=False)
        world.connect(session_present=True)
    assert ["has lost the bridge's session" in line["event"] for line in lines] == [True]
    assert types_of(world.online("ann")["eve1"]) == ["UserPresenceChangedEvent"]
    world.tick()
    assert world.all_acknowledged
    assert world.journal() == {}


def test_what_cannot_be_read_takes_no_part_in_the_batch() -> None:
    world = World(settles=False)
    junk = [message("presence/users/bob", "{not json", packet_id=number) for number in range(1, 900)]
    world.feed(*junk, message("presence/users/ann", "online", packet_id=900), *junk[:50])
    assert (world.counts["rejected:not_json"], world.counts["commits"]) == (949, 1)
    assert len(world.rejections) == 10
    [(_, _, entry)] = world.owed
    assert [packet_id for packet_id, _ in entry.inputs] == [900]
    assert world.all_acknowledged
    world.feed(junk[0]._replace(duplicate=True))
    assert world.counts["rejected:not_json"] == 950
    assert world.all_acknowledged


def test_what_it_hears_of_its_own_is_passed_over_and_said_once() -> None:
    world = World()
    with capture_logs() as lines:
        for number in range(3):
            assert world.feed(message(f"users/endpoints/e{number}", {"type": "X"})) == []
        assert world.feed(message(REJECTED, {"reason": "x"}, qos=0)) == []
    assert world.all_acknowledged
    assert (world.counts["echoes"], world.codes) == (4, [])
    assert ["somebody knows its MQTT client id" in line["event"] for line in lines] == [True]


def test_a_first_session_and_a_resumed_one_are_no_news() -> None:
    with capture_logs() as lines:
        World().connect(session_present=True)
    assert lines == []


# Recovery: the next run.


def crashed() -> tuple[World, World]:
    """A world that ended between commit and delivery, and the next one on its records."""
    world = World()
    world.register("eve", "eve1", 86_400, watch=["*"])
    world.tick()
    world.broker.settles = False
    world.say("presence/users/ann", "online", packet_id=7)
    return world, world.restarted(owed=world.owed, settles=False)


def test_what_an_ended_bridge_owed_is_sent_again_and_marked() -> None:
    before, after = crashed()
    assert [output.redelivered for output in after.broker.outputs] == [True]
    assert told(after.broker.outputs) == told(before.broker.outputs[-1:])
    assert after.counts["redelivered"] == 1


def test_what_expired_while_no_bridge_ran_is_not_sent_again_and_its_entry_goes() -> None:
    before, _ = crashed()
    [(_, entry_id, entry)] = before.owed
    outputs = [replace(output, expiry_seconds=30) for output in entry.outputs]
    owed = [("default", entry_id, replace(entry, outputs=outputs))]
    before.registry.now_ms += 20_000
    world = before.restarted(owed=owed)
    assert [output.expiry_seconds for output in world.broker.outputs] == [10]
    before.registry.now_ms += 20_000
    world = before.restarted(owed=owed)
    assert world.broker.outputs == []
    assert world.journal() == {}


def test_after_recovery_a_copy_joins_and_is_acknowledged_with_the_redelivered_outputs() -> None:
    _, world = crashed()
    world.say("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert world.counts["joined"] == 1
    assert not world.receipts[-1].done
    world.tick()
    assert len(world.journal()) == 1
    world.broker.settle()
    assert world.receipts[-1].done
    world.tick()
    assert world.journal() == {}


def test_after_recovery_an_input_that_is_not_redelivered_was_acknowledged() -> None:
    _, world = crashed()
    world.broker.settle()
    world.tick()
    assert world.journal() == {}
    world.broker.settles = True
    world.offline("ann")
    assert types_of(world.say("presence/users/ann", "online", packet_id=7)["eve1"]) == ["UserPresenceChangedEvent"]


def test_a_journal_of_a_lost_session_is_sent_but_holds_no_packet_ids() -> None:
    before, _ = crashed()
    owed = before.owed
    world = World(registry=before.registry, instance="i3", settles=True)
    world.line.owe(owed)
    world.connect(session_present=False)
    assert world.counts["redelivered"] == 1
    world.say("presence/users/ann", "online", packet_id=7, duplicate=True)
    assert world.counts["joined"] == 0


# Conflicts.


def test_a_conflict_is_decided_again_on_what_is_there_now() -> None:
    world, registry = meddled()
    world.register("eve", "eve1", watch=["*"])
    world.online("ann", "c1")
    registry.before_commit.append(lambda _: registry.touch("user:ann"))
    assert world.online("ann", "c2") == {}
    assert world.counts["conflicts"] == 1
    record = world.record("user:ann")
    assert record is not None
    assert set(record["connections"]) == {"c1", "c2"}
    assert world.all_acknowledged


def test_a_record_that_was_only_read_for_an_audience_is_checked_too() -> None:
    world, registry = meddled()
    world.join("s1", "ann", "bob")
    world.register("bob", "bob1")

    def another_tab(_: Commit) -> None:
        values = registry.organizations["default"]
        version, _, rest = values["user:bob"].partition(b":")  # type: ignore[union-attr]
        values["user:bob"] = b"%d:%b" % (int(version) + 1, rest.replace(b"bob1", b"bob2"))

    registry.before_commit.append(another_tab)
    assert set(world.online("ann")) == {"bob2"}


def test_a_new_record_below_the_floor_is_decided_again() -> None:
    world, registry = meddled()
    world.online("x")
    floor = registry.now_ms + 1000

    def another_bridge_deletes(_: Commit) -> None:
        registry.organizations["default"]["bridges"].floor = floor  # type: ignore[union-attr]

    registry.before_commit.append(another_bridge_deletes)
    world.online("ann")
    assert world.counts["conflicts"] == 1
    stored = registry.organizations["default"]["user:ann"]
    assert isinstance(stored, bytes)
    assert int(stored.partition(b":")[0]) == floor + 1


def test_an_input_with_commands_left_over_survives_a_conflict_and_is_acknowledged_once_all_are_done() -> None:
    world, registry = meddled()
    world.join("s1", *CROWD)
    registry.before_commit.append(lambda _: Conflict("session:s1"))
    registry.before_commit.append(lambda _: Conflict("session:s1"))
    world.feed(message("sessions/s1", wrapper(STOP, {**JOIN, "sessionUsers": ["new"]})))
    assert world.call("busy_users") == ["new"]
    assert world.all_acknowledged
    world.tick()
    assert world.journal() == {}


def test_an_endpoint_id_that_somebody_took_meanwhile() -> None:
    world, registry = meddled()
    world.register("bob", "bob1")
    load = registry.load

    async def taken_after_load(*args: Any) -> Any:
        loading = await load(*args)
        registry.load = load
        registry.owners["new"] = registry.owners["bob1"]
        values = registry.organizations["default"]
        values["user:bob"] = values["user:bob"].replace(b"bob1", b"new")  # type: ignore[union-attr]
        return loading

    registry.load = taken_after_load
    with pytest.raises(RpcError) as refused:
        world.register("ann", "new")
    assert refused.value.code == "conflict"
    assert world.counts["conflicts"] == 1


# Corrupt records.

SOUND = [message(f"presence/users/u{number}", "online") for number in range(20)]


@pytest.mark.parametrize("place", [0, 7, 20])
@pytest.mark.parametrize(
    "stored", [b"nonsense", b"5:1:{", b"5:99:{}", b"x:1:{}", b"", b'5:1:{"connections":5}', Ranks(a=1)], ids=repr
)
def test_one_corrupt_record_rejects_its_own_input_and_no_other(stored: Any, place: int) -> None:
    world = World()
    world.online("x")
    world.registry.organizations["default"]["user:bad"] = stored
    messages = [*SOUND]
    messages.insert(place, message("presence/users/bad", "online"))
    world.feed(*messages)
    assert len(world.call("online_users")) == 21
    assert world.codes == ["corrupt_record"]
    assert world.rejections[0]["topic"] == "presence/users/bad"
    assert world.registry.organizations["default"]["user:bad"] is stored
    assert world.all_acknowledged


def test_a_wrong_type_under_an_index_or_the_journal_rejects_only_what_needs_it() -> None:
    world = World()
    world.online("x")
    world.registry.organizations["default"]["online:device"] = b"5:1:{}"
    world.feed(*SOUND, message("presence/devices/lamp", "online"), message("presence/users/y", "online"))
    assert world.codes == ["corrupt_record"]
    assert len(world.call("online_users")) == 22
    assert world.all_acknowledged


def test_a_corrupt_record_of_a_fellow_member_does_not_silence_the_others() -> None:
    world = World()
    for stored in (b"nonsense", Ranks(a=1)):
        world.join("s1", "ann", "bob", "cat")
        world.register("cat", "cat1")
        world.registry.organizations["default"]["user:bob"] = stored
        assert types_of(world.online("ann")["cat1"]) == ["UserPresenceChangedEvent"]
        assert types_of(world.offline("ann")["cat1"]) == ["UserPresenceChangedEvent"]


@pytest.mark.parametrize("stored", [b"nonsense", Ranks(a=1)], ids=repr)
def test_corrupt_records_with_deadlines_never_fill_the_sweep(stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SWEEP_BATCH", 20)
    world = World()
    world.register("ann", "ann1", 30)
    values = world.registry.organizations["default"]
    deadlines = values["deadlines"]
    assert isinstance(deadlines, Ranks)
    for number in range(25):
        values[f"user:bad{number}"] = stored
        deadlines[f"user:bad{number}"] = 1
    assert types_of(world.pass_seconds(31)["ann1"]) == ["UserEndpointExpiredEvent"]
    assert world.deadlines() == {}


def test_a_member_of_another_type_does_not_hold_a_stop_for_ever() -> None:
    world = World()
    world.join("s1", *CROWD)
    world.registry.organizations["default"]["user:u300"] = Ranks(a=1)
    world.stop("s1")
    world.join("s1", "new")
    assert world.call("busy_users") == ["new", "u300"]
    assert world.all_acknowledged


# Other organizations, in one batch.


def test_organizations_are_committed_each_for_itself() -> None:
    world = World(prefix="{organization}/")
    world.feed(*(message(f"o{number % 3}/presence/users/ann", "online") for number in range(9)))
    assert world.counts["commits"] == 3
    for name in ("o0", "o1", "o2"):
        assert world.call("online_users", prefix=f"{name}/") == ["ann"]
    world.feed(message("a b/presence/users/ann", "online"), message("o1/presence/users/bob", "online"))
    assert world.codes == ["invalid_field"]
    assert world.call("online_users", prefix="o1/") == ["ann", "bob"]


def test_an_endpoint_of_another_organization_is_moved_there_with_its_answer_and_acknowledgement() -> None:
    world = World()
    world.register("ann", "ann1", organizationId="acme")
    request = message("rpc/keepalive_endpoint", ["ann1"], response_topic="replies/x", correlation=b"9")
    outputs = world.feed(
        message("presence/users/u", "online"), request, message("users/endpoints/ann1/keepalive"), request
    )
    assert [json.loads(output.payload) for output in outputs if output.correlation] == [{"result": None}] * 2
    assert world.codes == []
    assert world.all_acknowledged


def test_a_conflict_where_something_moved_elsewhere_does_it_once() -> None:
    world, registry = meddled()
    world.register("ann", "ann1", organizationId="acme")
    world.online("u")
    registry.before_commit.append(lambda _: Conflict("user:u"))
    request = message("rpc/unregister_endpoint", ["ann1"], response_topic="replies/x", correlation=b"9")
    outputs = world.feed(message("presence/users/u", "offline"), request)
    assert [json.loads(output.payload) for output in outputs if output.correlation] == [{"result": None}]
    assert world.all_acknowledged


# Answers reflect what came before.


def test_an_answer_reflects_every_input_before_it_in_the_same_batch() -> None:
    world = World()
    ask = message("rpc/online_users", response_topic="replies/x", correlation=b"1")
    outputs = world.feed(
        ask, message("presence/users/a", "online"), ask, message("presence/users/b", "online"), ask, ask
    )
    answers = [json.loads(output.payload)["result"] for output in outputs]
    assert answers == [[], ["a"], ["a", "b"], ["a", "b"]]


def test_a_read_while_a_stop_goes_on_sees_it_done() -> None:
    world = World()
    world.join("s1", *CROWD)
    ask = message("rpc/busy_users", response_topic="replies/x", correlation=b"1")
    outputs = world.feed(message("sessions/s1", STOP), ask)
    assert json.loads(outputs[-1].payload) == {"result": []}


def test_two_empty_requests_at_qos_0_have_two_answers() -> None:
    world = World()
    ask = [
        message("rpc/online_users", qos=0, response_topic="replies/x", correlation=str(number).encode())
        for number in range(3)
    ]
    assert [output.correlation for output in world.feed(*ask)] == [b"0", b"1", b"2"]


# Rejections.


def test_a_rejection_is_reported_counted_and_acknowledged() -> None:
    world = World()
    topic = "presence/users/" + "x" * 3000
    world.say(topic, "online")
    [report] = world.rejections
    assert report["topic"] == topic[:1024]
    assert report["reason"].startswith("invalid_field: ")
    assert report["receivedAt"] == "2023-11-14T22:13:20.000Z"
    assert report["sizeBytes"] == 6
    assert world.counts["rejected:invalid_field"] == 1
    assert world.all_acknowledged


def test_at_most_ten_reports_a_second() -> None:
    world = World()
    world.feed(*[message("presence/users/ann", b"\xff")] * 50)
    assert world.codes == ["not_json"] * 10
    assert world.counts["rejected:not_json"] == 50
    world.registry.now_ms += 1000
    world.say("presence/users/ann", b"\xff")
    assert len(world.codes) == 11
    assert all(output.qos == 0 for output in world.broker.outputs if output.topic == REJECTED)


def test_a_request_that_is_answered_is_not_reported_as_well() -> None:
    world = World()
    with pytest.raises(RpcError):
        world.call("nonsense")
    assert world.rejections == []
    world.say("rpc/nonsense")
    assert world.codes == ["unknown_method"]


def test_one_bad_event_among_good_ones_in_a_wrapper() -> None:
    world = World()
    world.say(
        "sessions/s1",
        wrapper({**JOIN, "sessionUsers": ["a", "", "b"]}, {"type": "?"}, {**JOIN, "sessionUsers": ["c"]}, 5),
    )
    assert world.call("busy_users") == ["a", "b", "c"]
    assert world.codes == ["empty_id", "unknown_type", "invalid_field"]
    assert world.all_acknowledged


def test_a_failing_rule_is_rejected_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.domain import commands, decide

    def broken(*_: object) -> None:
        raise KeyError("canary")

    world = World()
    monkeypatch.setitem(decide._RULES, commands.StopSession, broken)
    with capture_logs() as logged:
        world.feed(
            message("presence/users/a", "online"), message("sessions/s1", STOP), message("presence/users/b", "online")
        )
    [line] = logged
    assert line["command"] == "StopSession"
    assert line["trail"].endswith(" > KeyError")
    assert "test_pipeline.py:" in line["trail"]
    assert "canary" not in str(logged)
    assert world.call("online_users") == ["a", "b"]
    assert world.codes == ["corrupt_record"]
    assert world.all_acknowledged


# Size.


def test_more_than_a_batch_at_once() -> None:
    world = World()
    count = MAXIMUM_BATCH * 2 + 5
    world.feed(*(message(f"presence/users/u{number}", "online") for number in range(count)))
    assert len(world.call("online_users")) == count
    assert world.counts["commits"] == 3
    assert world.all_acknowledged


def test_many_events_on_one_record_are_one_read_and_one_write() -> None:
    world, registry = meddled()
    commits: list[list[Write]] = []
    registry.before_commit = [lambda commit: commits.append(commit.writes)]
    world.feed(*(message("presence/users/ann/status", str(number)) for number in range(500)))
    assert [[write.key for write in writes] for writes in commits] == [["user:ann"]]


def test_the_deepest_audience_needs_no_more_waves_than_a_batch_has() -> None:
    world = World()
    for number in range(20):
        world.join(f"s{number}", "ann", f"u{number}")
        world.register(f"u{number}", f"e{number}", watch=[f"device:d{number}", f"user:v{number}"])
    assert len(world.online("ann")) == 20
    assert world.all_acknowledged


def test_what_needs_more_waves_than_a_batch_has_takes_them_rather_than_going_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "MAXIMUM_WAVES", 1)
    test_the_deepest_audience_needs_no_more_waves_than_a_batch_has()


def test_what_was_told_to_unknown_endpoints_does_not_grow_without_bound() -> None:
    world = World()
    for _ in range(12):
        world.feed(*(message(f"users/endpoints/e{world.counts['received'] + n}/keepalive") for n in range(1000)))
    assert len(world.line._told_ms) <= 10_000


def test_a_sweep_of_more_than_a_batch_goes_on_by_itself() -> None:
    world = World()
    count = SWEEP_BATCH * 2 + 50
    world.feed(*(message("rpc/register_endpoint", [f"u{number}", 10, False]) for number in range(count)))
    world.pass_seconds(9)
    assert len(world.deadlines()) == count
    world.pass_seconds(1)
    assert (world.deadlines(), world.stored(), world.registry.owners) == ({}, set(), {})
    world.inbox.put(Sweep())
    assert world.work() == []


# As a task: Redis away, and stopping.


@asynccontextmanager
async def running(world: World) -> Any:
    """The line as a task of the loop, as the application runs it."""
    from bridge.inbox import Inbox

    world.inbox.__class__ = Inbox  # the real waiting
    task = asyncio.create_task(world.line.run(), name="line")
    yield task
    world.line.stop()
    await asyncio.wait_for(task, 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (a test's bounded look at what has no event)
            await asyncio.sleep(0.005)


class Away(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.asked = 0
        self.reasons: Iterator[str] = repeat("down")

    async def load(self, *args: Any) -> Any:
        self.asked += 1
        if self.is_away:
            raise RegistryUnavailable(next(self.reasons))
        return await super().load(*args)


async def test_while_redis_is_away_nothing_is_acknowledged_and_then_all_is() -> None:
    registry = Away()
    world = World(registry=registry)
    async with running(world):
        registry.is_away = True
        world.arrive(message("presence/users/a", "online"), message("presence/users/b", "online"))
        await until(lambda: registry.asked >= 2)
        assert not any(receipt.done for receipt in world.receipts)
        registry.is_away = False
        await until(lambda: world.all_acknowledged)
        assert world.stored() == {"user:a", "user:b"}


async def test_however_shortly_redis_was_away_it_is_a_pause_and_what_waited_is_heard_after_it() -> None:
    registry = Away()
    world = World(registry=registry)
    for name in ("heard", "turned_away"):
        world.register("ann", name, 60)
    async with running(world):
        registry.is_away = True
        world.arrive(message("users/endpoints/heard/keepalive", qos=0))
        await until(lambda: world.line.is_redis_away)
        registry.now_ms += 900
        registry.is_away = False
        await until(lambda: world.inbox.waiting == 0 and not world.line.is_redis_away)
    record = world.record("user:ann")
    assert record is not None
    renewed = {name: endpoint["renewed_ms"] for name, endpoint in record["endpoints"].items()}
    assert renewed["turned_away"] < registry.resumed_ms <= renewed["heard"]


async def test_each_reason_why_redis_is_away_is_told_once() -> None:
    registry = Away()
    registry.reasons = cycle(("down", "it is back, and a replica", "down"))
    with capture_logs() as entries:
        world = World(registry=registry)
        async with running(world):
            registry.is_away = True
            world.arrive(message("presence/users/a", "online"))
            await until(lambda: registry.asked >= 4)
            registry.is_away = False
            await until(lambda: world.all_acknowledged)
    told = [entry.get("reason") for entry in entries if "Redis" in entry["event"]]
    assert told == ["down", "it is back, and a replica", None]


async def test_stopping_while_redis_is_away_leaves_the_input_to_come_again() -> None:
    registry = Away()
    world = World(registry=registry)
    async with running(world) as task:
        registry.is_away = True
        world.arrive(message("presence/users/a", "online"))
        await until(lambda: registry.asked >= 1)
        world.line.stop()
        await asyncio.wait_for(asyncio.shield(task), 5)
        assert not world.receipts[-1].done


def test_a_copy_that_comes_while_the_line_stops_keeps_the_journal_until_it_is_acknowledged() -> None:
    """A fault run found it: the way to the broker broke during a stop, and the next bridge decided all of it again."""
    world = World()
    world.register("eve", "eve1", watch=["*"])
    world.tick()
    world.say("presence/users/ann", "online", packet_id=7)  # acknowledged, on a connection that breaks
    world.line.stop()
    world.end()
    stopping = world.line.finish()
    world.inbox.connected(2, True)
    world.connection = 2
    world.arrive(message("presence/users/ann", "online", packet_id=7, duplicate=True), message("presence/users/b", "x"))
    copy = world.receipts[-2]
    world.inbox.confirmed(2, copy.number - 1, True)
    stopping.send(None)
    assert len(world.journal()) == 1
    assert copy.done
    assert not world.receipts[-1].done  # it comes again after the next start
    world.inbox.confirmed(2, copy.number, True)
    with pytest.raises(StopIteration):
        stopping.send(None)
    assert world.journal() == {}


async def test_stopping_an_idle_line() -> None:
    async with running(World()) as task:
        await asyncio.sleep(0)
        assert not task.done()


def test_the_default_rules_are_those_of_the_contract() -> None:
    rules = Rules()
    assert (rules.maximum_connections, rules.maximum_members, rules.maximum_per_subject) == (32, 1000, 256)
    assert (rules.session_ms, rules.tombstone_ms) == (12 * 3_600_000, 24 * 3_600_000)


# What a review found.


def test_an_owner_that_cannot_be_read_does_not_spin_the_line() -> None:
    world = World()

    async def refuses(claims: Sequence[Claim]) -> list[bool]:
        return [False] * len(claims)

    world.registry.claim = refuses
    with pytest.raises(RpcError, match="corrupt_record"):
        world.call("register_endpoint", ["ann", 60, False, "x"])
    assert world.call("online_users") == []


def test_an_endpoint_id_freed_and_taken_at_once_has_one_owner_also_after_a_conflict() -> None:
    world = World()
    world.register("ann", "x")
    commit = world.registry.commit
    failed: list[Commit] = []

    async def conflicting(wanted: Commit) -> CommitAnswer:
        if not failed and any(write.key == "user:bob" for write in wanted.writes):
            failed.append(wanted)
            return Conflict("user:bob")
        return await commit(wanted)

    world.registry.commit = conflicting
    world.feed(
        message("rpc/unregister_endpoint", ["x"]),
        message("rpc/register_endpoint", ["bob", 60, False, "x"]),
    )
    assert failed
    assert world.call("list_endpoints", ["ann"]) == []
    assert [endpoint["id"] for endpoint in world.call("list_endpoints", ["bob"])] == ["x"]


def test_no_two_commits_share_a_token() -> None:
    world = World()
    commit = world.registry.commit
    tokens: list[tuple[str, str]] = []

    async def noting(wanted: Commit) -> CommitAnswer:
        tokens.append((wanted.organization, wanted.token))
        if wanted.organization == "default" and len(tokens) == 1:
            return Corrupt("deadlines")
        return await commit(wanted)

    world.registry.commit = noting
    world.feed(
        message("presence/users/ann", "online"),
        message("rpc/register_endpoint", ["bob", 60, False, "y", "user", None, "acme"]),
        message("presence/users/eve", "online"),
    )
    assert len(tokens) == len(set(tokens))
    assert world.call("online_users") == ["ann", "eve"]


def test_a_batch_ends_before_it_outgrows_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.batch.MAXIMUM_COPIES", 5)
    world = World()
    world.register("ann", "ann1")
    before = world.counts["commits"]
    world.feed(*(message("presence/users/ann/status", {"n": number}) for number in range(30)))
    assert world.counts["commits"] - before == 5
    assert world.all_acknowledged


def test_an_answer_too_large_for_a_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.batch.MAXIMUM_ANSWER_BYTES", 50)
    world = World()
    for number in range(20):
        world.say(f"presence/users/user-{number}", "online")
    with pytest.raises(RpcError, match="too_many"):
        world.call("online_users")
    assert world.call("online_users", {"limit": 2}) == ["user-0", "user-1"]


def test_replayed_requests_and_timeless_session_messages_do_nothing() -> None:
    world = World()
    world.feed(
        message("rpc/register_endpoint", ["ann", 60, False, "x"], retain=True),
        message("sessions/s1", {"type": "JoinSessionEvent", "sessionUsers": ["ann"]}, retain=True),
    )
    assert world.call("list_endpoints", ["ann"]) == []
    assert world.call("busy_users") == []


def test_a_bare_will_takes_a_device_offline_whose_clock_ran_ahead() -> None:
    world = World()
    ahead_ms = world.registry.now_ms + 60_000
    world.say("presence/devices/lamp", {"type": "DEVICE_CONNECTED", "timestamp": ahead_ms})
    assert world.call("online_devices") == ["lamp"]
    world.say("presence/devices/lamp", "offline")
    assert world.call("online_devices") == []


def test_a_codec_that_fails_costs_one_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Input) -> Decoded:
        raise KeyError("canary")

    world = World()
    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(world.line._intake, "decode", failing)
        world.feed(message("presence/users/ann", "online"))
    assert logged[0]["trail"].endswith(" > KeyError")
    assert "canary" not in str(logged)
    world.say("presence/users/eve", "online")
    assert world.call("online_users") == ["eve"]
    assert world.all_acknowledged


def test_a_command_that_makes_more_than_a_commit_may_hold_is_rejected_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.pipeline.MAXIMUM_JOURNAL_BYTES", 2_000)
    world = World()
    world.register("ann", "ann1")
    world.feed(
        message("presence/users/ann/status", {"n": 1}),
        message("presence/users/ann/status", {"pad": "x" * 3_000}),
        message("presence/users/ann/status", {"n": 3}),
    )
    assert world.counts["rejected:corrupt_record"] == 1
    assert world.all_acknowledged
    assert world.call("online_users") == []


def test_a_refusal_that_a_later_input_would_undo_is_not_decided_again_after_a_crash() -> None:
    world = World()
    world.broker.settles = False
    world.feed(
        message("rpc/unregister_endpoint", ["x"], response_topic="replies/me"),  # not_found
        message("rpc/register_endpoint", ["ann", 60, False, "x"], response_topic="replies/me"),
    )
    [(_, batch)] = world.journal().values()
    entry = decode_entry(batch)
    # Decided again behind the registration, it would end it.
    assert len(entry.inputs) == 2
    assert [b"not_found" in output.payload for output in entry.outputs] == [True, False]
