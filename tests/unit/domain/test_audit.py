"""The audit stream: an entry for everything told, and events() which reads it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridge import outcomes
from bridge.domain import mask_walk
from bridge.domain.audit import start_of
from bridge.domain.clock import iso_ms
from bridge.domain.journal import decode_entry
from bridge.domain.routes import RouteEntry
from bridge.domain.rules import Rules
from bridge.errors import Refusal
from tests.unit.world import RpcError, World, message

HOUR_MS = 3_600_000
RULES = Rules(audit_ms=24 * HOUR_MS)
EVENT = {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05Z"}


def audited(**rest: Any) -> World:
    return World(RULES, **rest)


def events(world: World, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.call("events", params)
    return found


def seen(entries: list[dict[str, Any]]) -> list[tuple[str, list[str], str, str | None]]:
    return [(entry["event"]["type"], entry["audience"], entry["outcome"], entry["userId"]) for entry in entries]


def test_everything_told_to_endpoints_leaves_an_entry() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.register("ann", "ann2")
    world.register("eve", "eve1", watch=["device:lamp"])
    world.online("lamp", kind="device")
    world.join("s1", "ann")
    assert world.call("send_event", {"event": EVENT, "userId": "ann"}) == 2
    assert seen(events(world)) == [
        ("UserEndpointRegisteredEvent", ["ann1"], "acknowledged", "ann"),
        ("DevicePresenceChangedEvent", ["eve1"], "acknowledged", None),
        ("JoinSessionEvent", ["ann1", "ann2"], "acknowledged", None),
        ("UserPresenceChangedEvent", ["ann1", "ann2"], "acknowledged", "ann"),
        ("OrderPlacedEvent", ["ann1", "ann2"], "sent", "ann"),
    ]


def test_an_entry_has_what_the_contract_says_and_the_event_as_delivered() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.register("ann", "ann2")
    [entry] = events(world)
    assert set(entry) == {"id", "event", "userId", "audience", "outcome"}
    [told] = [output for output in world.broker.outputs if output.event_id]
    assert entry["event"] == json.loads(told.payload)


def test_what_nobody_could_hear_is_noted_too() -> None:
    world = audited()
    assert world.call("send_event", {"event": EVENT, "userId": "ann"}) == 0
    assert seen(events(world)) == [("OrderPlacedEvent", [], "no_endpoint", "ann")]


def test_an_event_of_several_outcomes_has_an_entry_for_each() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.register("ann", "ann2")
    world.register("ann", "ann3")
    first = events(world)[-1]["id"]
    world.broker.settles = False
    world.feed(message("rpc/send_event", {"event": EVENT, "userId": "ann", "qos": 1}, response_topic="replies/a"))
    (_, settled), *_ = world.broker.waiting
    world.broker.waiting.clear()
    world.broker.settles = True
    settled([0, 0x10, 0])
    world.work()
    assert seen(events(world, since=first)) == [
        ("OrderPlacedEvent", ["ann1", "ann3"], "acknowledged", "ann"),
        ("OrderPlacedEvent", ["ann2"], "no_subscriber", "ann"),
    ]


def test_what_the_broker_refuses_is_audited_as_refused() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.broker.settles = False
    world.online("ann")
    world.broker.settle(0x87)
    world.work()
    world.broker.settles = True
    assert seen(events(world)) == [("UserPresenceChangedEvent", ["ann1"], "refused", "ann")]


def test_an_answer_reflects_all_that_came_before_the_question() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.broker.settles = False
    question = message("rpc/events", response_topic="replies/a")
    world.feed(message("presence/users/ann", "online"), question)
    assert not world.receipts[-1].done
    assert not [output for output in world.broker.outputs if output.topic == "replies/a"]
    world.broker.settle()
    [answer] = world.work()
    assert seen(json.loads(answer.payload)["result"]) == [("UserPresenceChangedEvent", ["ann1"], "acknowledged", "ann")]
    world.broker.settle()
    assert world.all_acknowledged
    assert world.outcomes.is_idle


def test_a_journaled_event_that_is_sent_again_is_audited_again() -> None:
    world = audited()
    world.register("ann", "ann1")
    world.broker.settles = False
    world.online("ann")
    owed = [("default", entry, decode_entry(batch)) for entry, (_, batch) in world.journal().items()]
    again = world.restarted(owed=owed)
    assert ("UserPresenceChangedEvent", ["ann1"], "acknowledged", "ann") in seen(events(again))


# Reading.


def story() -> World:
    world = audited()
    world.register("ann", "ann1", 80_000)
    world.online("ann")
    world.join("s1", "ann")
    world.call("send_event", {"event": {**EVENT, "sessionId": "s1"}, "userId": "ann"})
    world.call("send_event", {"event": {**EVENT, "type": "RoomOpenedEvent", "topicId": "r1"}, "userId": "bob"})
    world.call("send_event", {"event": {**EVENT, "sessionId": 5, "about": ["x"], "topicId": {}}, "userId": "bob"})
    return world


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"type": "OrderPlacedEvent"}, [3, 5]),
        ({"userId": "ann"}, [0, 2, 3]),
        ({"userId": "bob"}, [4, 5]),
        ({"userId": "bob", "type": "OrderPlacedEvent"}, [5]),
        ({"session": "s1"}, [1, 3]),
        ({"session": "5"}, []),
        ({"room": "r1"}, [4]),
        ({"room": "r1", "session": "s1"}, []),
        ({"type": "order"}, []),
    ],
)
def test_a_filter_says_what_all_entries_have_to_fit(wanted: dict[str, str], places: list[int]) -> None:
    world = story()
    everything = events(world)
    assert events(world, filter=wanted) == [everything[place] for place in places]


def test_since_is_an_entry_or_a_time() -> None:
    world = story()
    began_ms = world.registry.now_ms
    world.registry.now_ms += 5000
    world.offline("ann")
    everything = events(world)
    assert len(everything) == 7
    assert events(world, since=everything[2]["id"]) == everything[3:]
    assert events(world, since=everything[6]["id"]) == []
    assert events(world, since=iso_ms(began_ms)) == everything
    assert events(world, since=iso_ms(began_ms + 1)) == everything[6:]
    assert events(world, since="1969-01-01T00:00:00Z") == everything
    assert events(world, since=everything[0]["id"], limit=2) == everything[1:3]
    assert world.call("events", [None, {"type": "RoomOpenedEvent"}, 1]) == [everything[4]]


def test_a_long_stream_is_read_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "AUDIT_PAGE", 2)
    world = story()
    everything = events(world)
    assert len(everything) == 6
    assert events(world, filter={"userId": "bob"}) == everything[4:]
    assert events(world, filter={"userId": "bob"}, limit=1) == everything[4:5]
    monkeypatch.setattr(outcomes, "MAXIMUM_ANSWER_BYTES", 800)
    first = events(world)
    assert 0 < len(first) < 6
    assert events(world, since=first[-1]["id"])[0] == everything[len(first)]


CASES = [json.loads(line) for line in (Path(__file__).parents[2] / "cases" / "masks.jsonl").read_text().splitlines()]


def test_the_cases_of_masks_hold_for_the_audit_copy() -> None:
    world = audited()
    world.register("ann", "ann1")
    for case in CASES:
        params = {"event": case["event"], "userId": "ann", "masks": case["masks"]}
        before = len(world.broker.outputs)
        if "error" in case:
            with pytest.raises(RpcError, match="invalid_mask"):
                world.call("send_event", params)
            assert len(world.broker.outputs) == before + 1, "nothing but the refusal"
            continue
        assert world.call("send_event", params) == 1
        assert json.loads(world.broker.outputs[before].payload) == case["event"], case["name"]
        assert events(world)[-1]["event"] == case["expect"], case["name"]


def test_what_an_entry_is_looked_for_by_is_taken_from_the_original() -> None:
    world = audited()
    secret = {**EVENT, "sessionId": "s1", "topicId": 7}
    world.call("send_event", {"event": secret, "userId": "ann", "masks": ["$..*"]})
    masked = {name: "*" * len(value) if isinstance(value, str) else value for name, value in secret.items()}
    for wanted in ({}, {"type": "OrderPlacedEvent"}, {"session": "s1"}, {"userId": "ann"}):
        assert [entry["event"] for entry in events(world, filter=wanted)] == [masked]
    for wanted in ({"type": "*" * 16}, {"session": "**"}, {"room": "7"}):
        assert events(world, filter=wanted) == []


def test_what_is_older_than_is_kept_is_not_shown() -> None:
    world = story()
    world.registry.now_ms += 24 * HOUR_MS + 1
    world.call("send_event", {"event": EVENT, "userId": "bob"})
    assert len(events(world)) == 1
    assert len(events(world, since="2000-01-01T00:00:00Z")) == 1


def test_entries_that_are_not_ours_are_passed_over() -> None:
    world = story()
    audit: Any = world.registry.organizations["default"]["audit"]
    for place, text in enumerate((b"nonsense", b"{}", b'{"event":[]}', b'{"event":{"type":"\xff"}}')):
        audit[list(audit)[place]] = text
    assert len(events(world)) == 2


@pytest.mark.parametrize(
    "params",
    [
        {"since": "yesterday"},
        {"since": ""},
        {"since": 5},
        {"since": "123-1"},
        {"since": "1700000000000-"},
        {"limit": 0},
        {"limit": 1001},
        {"filter": []},
        {"filter": {"user": "ann"}},
        {"filter": {"type": 5}},
    ],
)
def test_bad_questions_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(RpcError, match="invalid_params"):
        events(audited(), **params)


def test_an_id_has_no_more_digits_than_redis_reads() -> None:
    assert start_of("9999999999999999999-9999999999999999999")[0].startswith("(")
    with pytest.raises(Refusal):
        start_of("99999999999999999999-1")


def test_organizations_do_not_see_each_other() -> None:
    world = audited(prefix="{organization}/")
    world.call("send_event", {"event": EVENT, "userId": "ann"}, prefix="acme/")
    assert world.call("events", prefix="other/") == []
    assert len(world.call("events", prefix="acme/")) == 1


def test_users_may_not_ask() -> None:
    with pytest.raises(RpcError, match="forbidden"):
        audited().call("events", user="ann")


def test_without_an_audit_nothing_is_kept_and_the_question_says_so() -> None:
    world = World()
    world.register("ann", "ann1")
    world.online("ann")
    assert "audit" not in world.registry.organizations["default"]
    with pytest.raises(RpcError, match="not_found"):
        events(world)


STATUS = {"phone": "0123", "room": 7, "deep": [{"phone": "45", "name": "x"}]}
HIDDEN = {"phone": "****", "room": 7, "deep": [{"phone": "**", "name": "x"}]}


def told_status(*masks: str, deliver_masked: bool = False) -> tuple[World, dict[str, Any]]:
    """A world with a route that masks, and what ann was told of her status."""
    route = RouteEntry("UserStatusChangedEvent", masks=masks, deliver_masked=deliver_masked)
    world = audited(overrides=[route])
    world.register("ann", "ann1")
    world.feed(message("presence/users/ann", b"online"), message("presence/users/ann/status", STATUS))
    [told] = [json.loads(o.payload) for o in world.broker.outputs if b"UserStatusChangedEvent" in o.payload]
    return world, told


def test_a_routes_masks_hide_in_the_audit_and_nowhere_else() -> None:
    world, told = told_status("$..phone")
    assert told["status"] == STATUS
    [entry] = events(world, filter={"type": "UserStatusChangedEvent"})
    assert entry["event"] == {**told, "status": HIDDEN}
    assert (entry["audience"], entry["outcome"], entry["userId"]) == (["ann1"], "acknowledged", "ann")
    assert {e["event"]["type"]: e["event"].get("status") for e in events(world)}["UserPresenceChangedEvent"] is None
    assert "0123" in json.dumps(world.record("user:ann"))


@pytest.mark.parametrize("deliver_masked", [False, True])
def test_deliver_masked_hides_it_from_the_endpoints_too_and_once(deliver_masked: bool) -> None:
    """The second mask would find the name in what is masked already."""
    world, told = told_status("$..phone", "$.status.deep[?(@.phone == '**')].name", deliver_masked=deliver_masked)
    assert told["status"] == (HIDDEN if deliver_masked else STATUS)
    [entry] = events(world, filter={"type": "UserStatusChangedEvent"})
    assert entry["event"]["status"] == HIDDEN


def test_an_entry_is_found_by_what_is_masked_in_it() -> None:
    world, _ = told_status("$..*")
    [entry] = events(world, filter={"type": "UserStatusChangedEvent", "userId": "ann"})
    assert set(entry["event"]["type"]) == set(entry["event"]["about"]) == {"*"}


def test_masks_with_too_much_to_look_at_leave_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_walk.Walk.__init__, "__defaults__", (5,))
    world, told = told_status("$..phone", deliver_masked=True)
    assert set(told) == {"id", "type", "timestamp", "organizationId", "version", "masked"}
    assert told["masked"] == "failed"
    [entry] = events(world, filter={"type": "UserStatusChangedEvent"})
    assert entry["event"] == told


def test_the_reminder_is_masked_under_its_own_name() -> None:
    rules = Rules(audit_ms=24 * HOUR_MS, reminder_event="AreYouThereEvent")
    world = World(rules, overrides=[RouteEntry("AreYouThereEvent", masks=("$.userId",))])
    world.call("register_endpoint", ["ann", 9, True, "ann1"])
    world.pass_seconds(6)
    [entry] = events(world, filter={"type": "AreYouThereEvent"})
    assert entry["event"]["userId"] == "***"
