"""send_event: what is taken, to whom it goes, what is answered, and what a repetition finds."""

import json
from typing import Any

import pytest

from bridge.domain.audit import outcome_of
from bridge.domain.rules import Rules
from bridge.domain.values import Output
from tests.unit.world import RpcError, World, message

EVENT = {"type": "OrderPlacedEvent", "timestamp": "2026-01-02T03:04:05Z"}


def with_endpoints(*endpoints: str, **rest: Any) -> World:
    world = World(**rest)
    for endpoint in endpoints:
        world.register("ann", endpoint, 6000)
    world.broker.outputs.clear()
    return world


def send(world: World, event: object = EVENT, user: str = "ann", **params: Any) -> Any:
    return world.call("send_event", {"event": event, "userId": user, **params})


def refused(world: World, event: object = EVENT, **params: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        send(world, event, **params)
    assert delivered(world) == []
    assert world.all_acknowledged
    return caught.value


def delivered(world: World) -> list[Output]:
    return [output for output in world.broker.outputs if output.topic.startswith("users/")]


# What is taken.


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": None}, "event.type is missing"),
        ({"type": 5}, "event.type is no text"),
        ({"type": "OrderEvent"}, "event.type does not fit"),
        ({"type": "orderPlacedEvent"}, "event.type does not fit"),
        ({"type": "OrderPlaced"}, "event.type does not fit"),
        ({"type": "OrderPlacedEvent\n"}, "event.type does not fit"),
        ({"type": "ÖrderPlacedEvent"}, "event.type does not fit"),
        ({"type": "A" * 124 + "Event"}, "event.type does not fit"),
        ({"timestamp": None}, "event.timestamp is missing"),
        ({"timestamp": 1_700_000_000}, "event.timestamp is no text"),
        *(
            ({"timestamp": text}, "event.timestamp does not fit")
            for text in (
                *("", "now", "2026-01-02", "2026-01-02T03:04Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
                *("2026-01-02t03:04:05z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05.Z", "2026-13-02T03:04:05Z"),
                *("2026-02-30T03:04:05Z", "2026-01-02T25:04:05Z", "2026-01-02T03:04:05Z\n", "٢٠٢٦-01-02T03:04:05Z"),
                "2026-01-02T03:04:05,5Z",
            )
        ),
    ],
)
def test_an_event_needs_a_type_and_a_time(change: dict[str, object], field: str) -> None:
    event = {name: value for name, value in {**EVENT, **change}.items() if value is not None}
    error = refused(with_endpoints("ann1"), event)
    assert error.code == "invalid_event"
    assert error.message.startswith(field)
    assert ": write " in error.message


@pytest.mark.parametrize("fraction", ["", ".1", ".123", ".123456789", ".1234567890123456789"])
def test_any_fraction_of_a_second_is_taken(fraction: str) -> None:
    assert send(with_endpoints("ann1"), {**EVENT, "timestamp": f"2026-01-02T03:04:05{fraction}Z"}) == 1


@pytest.mark.parametrize("event_type", ["AaBEvent", "ABEvent", "OrderPlacedEvent", "OrderEventEvent", "X9Y0Event"])
def test_a_type_is_a_noun_and_a_verb_at_least(event_type: str) -> None:
    assert send(with_endpoints("ann1"), {**EVENT, "type": event_type}) == 1


@pytest.mark.parametrize("event", [None, 5, "x", [], True, [EVENT]])
def test_an_event_is_an_object(event: object) -> None:
    assert refused(with_endpoints("ann1"), event).code == "invalid_event"


@pytest.mark.parametrize("text", [b'{"a": 1e999}', b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"{"])
def test_what_other_clients_could_not_read_is_not_passed_on(text: bytes) -> None:
    world = with_endpoints("ann1")
    with pytest.raises(RpcError):
        world.call("send_event", b'{"userId": "ann", "event": %b}' % text)
    assert delivered(world) == []


def test_size_and_depth_are_bounded() -> None:
    def nested(levels: int) -> dict[str, object]:
        inner: object = "x"
        for _ in range(levels - 1):
            inner = [inner]
        return {**EVENT, "data": inner}

    world = with_endpoints("ann1", rules=Rules(event_limit_bytes=200))
    size = len(json.dumps({**EVENT, "data": ""}))
    assert send(world, {**EVENT, "data": "x" * (200 - size)}) == 1
    world.broker.outputs.clear()
    assert refused(world, {**EVENT, "data": "x" * (201 - size)}).code == "too_large"
    world = with_endpoints("ann1")
    assert send(world, nested(64)) == 1
    world.broker.outputs.clear()
    error = refused(world, nested(65))
    assert (error.code, "64 levels" in error.message) == ("invalid_event", True)


@pytest.mark.parametrize(
    "params",
    [
        {"userId": None},
        {"userId": "a/b"},
        {"userId": 5},
        {"userEndpointId": "a b"},
        {"userEndpointId": ""},
        {"outcomes": 1},
        {"unknown": 1},
    ],
)
def test_bad_parameters_send_nothing(params: dict[str, object]) -> None:
    assert refused(with_endpoints("ann1"), **params).code == "invalid_params"


def test_an_event_is_needed() -> None:
    world = with_endpoints("ann1")
    with pytest.raises(RpcError, match="event is missing"):
        world.call("send_event", {"userId": "ann"})


def test_parameters_may_stand_in_an_array() -> None:
    world = with_endpoints("ann1", "ann2")
    assert world.call("send_event", [EVENT, "ann", "ann2", 1, [], "default"]) == 1
    assert [output.topic for output in delivered(world)] == ["users/endpoints/ann2"]


# Delivery.


def test_an_event_is_delivered_with_not_a_byte_changed() -> None:
    world = with_endpoints("ann1")
    event = (
        b'{ "type":"OrderPlacedEvent","timestamp" : "2026-01-02T03:04:05Z", "big": 123456789012345678901234567890,\n'
        b'"small":1e-400, "exact": 1.10000000000000000000001, "twice": 1, "twice": 2, "text": "\\u00e9\xc3\xa9\\/"}'
    )
    assert world.call("send_event", b'{"qos": 1, "event": %b , "userId": "ann"}' % event) == 1
    assert [output.payload for output in delivered(world)] == [event]


def test_it_goes_to_all_endpoints_of_the_user_or_to_the_one_named() -> None:
    world = with_endpoints("ann1", "ann2", "ann3")
    world.register("bob", "bob1")
    assert send(world) == 3
    assert [output.topic[-4:] for output in delivered(world)] == ["ann1", "ann2", "ann3"]
    assert send(world, userEndpointId="ann2") == 1
    assert delivered(world)[3].topic == "users/endpoints/ann2"
    assert send(world, user="nobody") == 0


@pytest.mark.parametrize("endpoint", ["gone", "bob1", "lamp1"])
def test_an_endpoint_that_is_not_the_users_is_not_found(endpoint: str) -> None:
    world = with_endpoints("ann1")
    world.register("bob", "bob1")
    world.register("ann", "lamp1", kind="device")
    world.broker.outputs.clear()
    assert refused(world, userEndpointId=endpoint).code == "not_found"


@pytest.mark.parametrize(("given", "qos"), [(1, 1), (1.0, 1), (0, 0), (2, 0), ("1", 0), (True, 0), (None, 0), ([], 0)])
def test_qos_1_is_at_least_once_and_everything_else_at_most_once(given: object, qos: int) -> None:
    world = with_endpoints("ann1")
    assert send(world, qos=given) == 1
    assert [output.qos for output in delivered(world)] == [qos]


def test_the_user_property_repeats_the_events_id_or_a_new_one() -> None:
    world = with_endpoints("ann1")
    for event_id in ("order-1", "", "a\nb", "x" * 129, 5, None):
        send(world, {**EVENT, "id": event_id})
    first, *others = [output.event_id for output in delivered(world)]
    assert first == "order-1"
    assert len(set(others)) == 5
    assert all(event_id.endswith("-i1") for event_id in others)


def test_the_topic_may_name_the_user_and_the_organization() -> None:
    world = World(prefix="{organization}/", endpoint_topic="user/{user}/{endpoint}")
    world.call("register_endpoint", ["ann", 60, False, "ann1"], prefix="acme/")
    assert world.call("send_event", [EVENT, "ann"], prefix="acme/") == 1
    assert world.broker.outputs[-2].topic == "acme/user/ann/ann1"
    assert world.call("send_event", [EVENT, "ann"], prefix="other/") == 0
    with pytest.raises(RpcError, match="forbidden"):
        world.call("send_event", {"event": EVENT, "userId": "ann", "organizationId": "other"}, prefix="acme/")


def test_a_user_sends_to_users_of_its_own_organization_only() -> None:
    world = with_endpoints("ann1")
    world.register("eve", "eve1", organizationId="acme")
    assert world.call("send_event", {"event": EVENT, "userId": "ann"}, user="bob") == 1
    assert world.call("send_event", {"event": EVENT, "userId": "eve"}, user="bob") == 0
    params = {"event": EVENT, "userId": "eve", "organizationId": "acme"}
    with pytest.raises(RpcError, match="forbidden"):
        world.call("send_event", params, user="bob")
    assert world.call("send_event", params) == 1


# What is answered.


def test_the_answer_counts_what_the_broker_took() -> None:
    assert [outcome_of(1, code) for code in (0, 0x10, 0x80, 0x87, 0x97, 0x01)] == [
        *("acknowledged", "no_subscriber", "refused", "refused", "refused", "acknowledged")
    ]
    assert [outcome_of(0, code) for code in (0, 0x90, 0x95)] == ["sent", "refused", "refused"]


@pytest.mark.parametrize(
    ("code", "count", "outcome"), [(0, 2, "acknowledged"), (0x10, 2, "no_subscriber"), (0x87, 0, "refused")]
)
def test_the_caller_waits_for_the_pubacks(code: int, count: int, outcome: str) -> None:
    world = with_endpoints("ann1", "ann2")
    world.broker.settles = False
    request = message("rpc/send_event", {"event": EVENT, "userId": "ann", "qos": 1}, response_topic="replies/a")
    listed = {"event": EVENT, "userId": "ann", "qos": 1, "outcomes": True}
    outputs = world.feed(request, message("rpc/send_event", listed, response_topic="replies/b"))
    assert len(outputs) == 4
    assert not any(receipt.done for receipt in world.receipts[-2:])
    world.broker.settle(code)
    answers = {output.topic: json.loads(output.payload)["result"] for output in world.work()}
    assert answers == {
        "replies/a": count,
        "replies/b": [{"userEndpointId": endpoint, "outcome": outcome} for endpoint in ("ann1", "ann2")],
    }
    assert not any(receipt.done for receipt in world.receipts[-2:])
    world.broker.settle()
    assert world.all_acknowledged


def test_nothing_of_it_is_ever_stored() -> None:
    world = with_endpoints("ann1")
    world.tick()
    world.broker.settles = False
    canary = {**EVENT, "id": "canary", "card": "canary"}
    world.feed(
        message("presence/users/ann", "online"),  # a change shares the batch, and is journaled
        message("rpc/send_event", {"event": canary, "userId": "ann"}, response_topic="replies/a"),
        message("rpc/send_event", {"event": canary, "userId": "ann", "qos": 1}),
    )
    assert len(world.journal()) == 1
    assert "canary" not in str(world.registry.organizations)
    world.broker.settle()
    world.work()
    assert "canary" not in str(world.registry.organizations)


@pytest.mark.parametrize("masks", ["$.a", {}, [5], [None], ["$.a", "$["], ["$.a"] * 33])
def test_a_bad_mask_sends_nothing(masks: object) -> None:
    error = refused(with_endpoints("ann1"), masks=masks)
    assert error.code == "invalid_mask"
    assert "masks" in error.message


def test_masks_that_look_at_too_much_send_nothing() -> None:
    world = with_endpoints("ann1")
    event = {**EVENT, "rows": [{"a": [1, 2, 3]} for _ in range(10_000)]}
    assert refused(world, event, masks=["$..a..*"] * 8).code == "invalid_mask"


def test_masks_change_nothing_of_what_is_delivered() -> None:
    world = with_endpoints("ann1")
    assert send(world, {**EVENT, "card": "4111", "n": 5}, masks=["$.card", "$..*"]) == 1
    [output] = delivered(world)
    assert json.loads(output.payload) == {**EVENT, "card": "4111", "n": 5}
    assert world.counts["unmasked:0"] == 0
    assert world.counts["unmasked:1"] == 1


# Repetitions.

KNOWN = {**EVENT, "id": "order-1"}


def test_a_repetition_is_answered_and_not_sent() -> None:
    world = with_endpoints("ann1", "ann2")
    assert send(world, KNOWN, qos=1) == 2
    world.register("ann", "ann3", 6000)
    world.broker.outputs.clear()
    assert send(world, dict(reversed(KNOWN.items())), qos=1) == 2  # JSON-equal
    assert send(world, KNOWN, qos=1, outcomes=True) == [
        {"userEndpointId": "ann1", "outcome": "acknowledged"},
        {"userEndpointId": "ann2", "outcome": "acknowledged"},
    ]
    assert delivered(world) == []
    world.jump_seconds(599)
    assert send(world, KNOWN, qos=1) == 2
    assert delivered(world) == []
    world.jump_seconds(1)
    assert send(world, KNOWN, qos=1) == 3
    assert len(delivered(world)) == 3


def test_the_same_key_with_another_body_is_a_conflict() -> None:
    world = with_endpoints("ann1", "ann2")
    assert send(world, KNOWN) == 2
    world.broker.outputs.clear()
    assert refused(world, {**KNOWN, "more": 1}).code == "conflict"
    assert refused(world, KNOWN, qos=1).code == "conflict"


def test_one_event_may_go_to_several_users_and_by_several_callers() -> None:
    world = with_endpoints("ann1", "ann2")
    world.register("bob", "bob1")
    assert [send(world, KNOWN, user=user) for user in ("ann", "bob", "ann")] == [2, 1, 2]
    assert send(world, KNOWN, userEndpointId="ann2") == 1
    assert world.call("send_event", {"event": KNOWN, "userId": "ann"}, user="eve") == 2
    assert len(delivered(world)) == 2 + 1 + 0 + 1 + 2


def test_a_repetition_waits_for_the_first_while_that_is_under_way() -> None:
    world = with_endpoints("ann1")
    world.broker.settles = False
    params = {"event": KNOWN, "userId": "ann", "qos": 1}
    requests = [message("rpc/send_event", params, response_topic=f"replies/{number}") for number in range(3)]
    assert len(world.feed(*requests[:2])) == 1  # in one batch
    other = message("rpc/send_event", {**params, "qos": 0}, response_topic="replies/other")
    [answer] = world.feed(requests[2], other)  # in the next
    assert json.loads(answer.payload)["error"]["code"] == "conflict"
    world.broker.settle()
    answers = {output.topic: json.loads(output.payload) for output in world.work()}
    assert answers == {f"replies/{number}": {"result": 1} for number in range(3)}
    world.broker.settle()
    assert world.all_acknowledged


def test_what_was_refused_may_be_tried_again() -> None:
    world = with_endpoints("ann1")
    assert refused(world, KNOWN, userEndpointId="ann2").code == "not_found"
    world.register("ann", "ann2")
    assert send(world, KNOWN, userEndpointId="ann2") == 1


def test_after_a_crash_it_is_simply_sent_again() -> None:
    world = with_endpoints("ann1")
    world.broker.settles = False
    params = {"event": KNOWN, "userId": "ann", "qos": 1}
    world.feed(message("rpc/send_event", params, response_topic="replies/a", packet_id=7))
    world = world.restarted()
    copy = message("rpc/send_event", params, response_topic="replies/a", packet_id=7, duplicate=True)
    outputs = world.feed(copy)
    assert [output.topic for output in outputs] == ["users/endpoints/ann1", "replies/a"]
    assert not any(output.redelivered for output in outputs)
    assert world.all_acknowledged


def test_a_kept_answer_that_is_not_ours_is_passed_over() -> None:
    world = with_endpoints("ann1")
    assert send(world, KNOWN) == 1
    values = world.registry.organizations["default"]
    [key] = [key for key in values if key.startswith("sent:")]
    for text in (b"nonsense", b"{}"):
        values[key] = text
        assert send(world, KNOWN) == 1
    assert len(delivered(world)) == 3
