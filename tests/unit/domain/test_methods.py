"""The RPC methods through the whole line: parameters in every form, rights, limits, every code."""

import json
from typing import Any

import pytest

from bridge.domain.commands import SERVICE
from bridge.domain.decide import QUESTIONS
from bridge.domain.methods import METHODS, RPC_CODES, Call, decode_call
from bridge.domain.rules import Rules
from bridge.errors import Refusal
from tests.unit.world import RpcError, World, message, told

LISTS = [f"{what}_{kind}s" for what in ("online", "busy", "status") for kind in ("user", "participant", "device")]
SERVICE_ONLY = [*LISTS, "update_device_status", "sessions_of", "session_members"]


def code(world: World, method: str, params: object = b"", **rest: Any) -> str:
    with pytest.raises(RpcError) as refused:
        world.call(method, params, **rest)
    assert refused.value.message
    return refused.value.code


def test_the_table_has_every_method_of_this_milestone() -> None:
    assert set(METHODS) >= {
        *SERVICE_ONLY,
        *("register_endpoint", "keepalive_endpoint", "unregister_endpoint", "watch_endpoint", "list_endpoints"),
    }


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b" {} "])
@pytest.mark.parametrize("method", LISTS)
def test_a_method_without_parameters(method: str, payload: bytes) -> None:
    assert World().call(method, payload) == ({} if method.startswith("status") else [])


def test_parameters_in_an_array_stand_in_the_order_of_the_contract() -> None:
    world = World()
    assert world.call("register_endpoint", ["ann", 600, True, "ann1", "user", ["*"], "default"]) == {"id": "ann1"}
    record = world.record("user:ann")
    assert record is not None
    assert record["endpoints"]["ann1"]["reminder_on"] is True
    assert record["endpoints"]["ann1"]["watch"] == ["*"]
    assert world.call("list_endpoints", ["ann"])[0]["id"] == "ann1"
    assert world.call("watch_endpoint", ["ann1", []]) is None
    world.online("lamp", kind="device")
    answer = world.call("update_device_status", ["lamp", '{"on":true}', 5])
    assert answer == {"uuid": "lamp", "status": '{"on":true}', "timestamp": 5}
    world.join("s1", "ann")
    assert world.call("sessions_of", ["user", "ann"]) == ["s1"]
    assert world.call("session_members", ["s1"])["users"] == ["ann"]
    assert world.call("online_devices", [5, "a"]) == ["lamp"]
    assert world.call("unregister_endpoint", ["ann1", "bye"]) is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("online_users", {"limitt": 5}),
        ("online_users", [1, "", 3]),
        ("online_users", {"limit": 0}),
        ("online_users", {"limit": 10_001}),
        ("online_users", {"limit": -1}),
        ("online_users", {"limit": "5"}),
        ("online_users", {"limit": True}),
        ("online_users", {"cursor": 5}),
        ("online_users", b"null"),
        ("online_users", b'"x"'),
        ("online_users", b"nonsense"),
        ("sessions_of", {}),
        ("sessions_of", {"kind": "users", "uuid": "ann"}),
        ("sessions_of", {"kind": "user", "uuid": "a/b"}),
        ("sessions_of", {"kind": "user", "uuid": ""}),
        ("session_members", {"session": ""}),
        ("list_endpoints", {}),
        ("register_endpoint", {}),
        ("register_endpoint", {"userId": "ann"}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 0}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 86_401}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": "60"}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": ""}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": "a b"}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": "x" * 129}),
        ("register_endpoint", {"userId": "a#", "keepAliveSeconds": 60}),
        ("register_endpoint", {"keepAliveSeconds": 60}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "kind": "robot"}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "watch": ["lamp"]}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "watch": ["robot:*"]}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "watch": ["device:"]}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "watch": ["device:a/b"]}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "watch": "*"}),
        ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "organizationId": "a b"}),
        ("keepalive_endpoint", {"userEndpointId": "a b"}),
        ("watch_endpoint", {"userEndpointId": "e1"}),
        ("update_device_status", {"uuid": "lamp", "status": "{", "timestamp": 5}),
        ("update_device_status", {"uuid": "lamp", "status": '{"x":1e999}', "timestamp": 5}),
        ("update_device_status", {"uuid": "lamp", "status": "[" * 100 + "]" * 100, "timestamp": 5}),
        ("update_device_status", {"uuid": "lamp", "status": {}, "timestamp": 5}),
        ("update_device_status", {"uuid": "lamp", "status": "1", "timestamp": "x"}),
        ("update_device_status", {"uuid": "lamp", "status": "1", "timestamp": 1e300}),
        ("update_device_status", {"uuid": "lamp", "status": "1"}),
        ("update_device_status", b'{"uuid":"lamp","status":"\\ud800","timestamp":5}'),
    ],
)
def test_bad_parameters_are_refused_and_change_nothing(method: str, params: object) -> None:
    world = World()
    assert code(world, method, params) == "invalid_params"
    assert world.stored() == set()


def test_a_status_time_too_far_ahead_is_a_fault_of_the_parameters() -> None:
    world = World()
    world.online("lamp", kind="device")
    ahead = world.registry.now_ms + 300_001
    params = {"uuid": "lamp", "status": "1", "timestamp": ahead}
    assert code(world, "update_device_status", params) == "invalid_params"
    assert world.call("update_device_status", {**params, "timestamp": ahead - 1})["timestamp"] == ahead - 1


def test_each_code_of_the_milestone_is_told() -> None:
    assert code(World(), "nonsense") == "unknown_method"
    world = World(Rules(maximum_per_subject=1, maximum_watch=1))
    world.register("ann", "ann1")
    assert code(world, "register_endpoint", ["ann", 60]) == "quota_exceeded"
    assert code(world, "watch_endpoint", ["ann1", ["*", "device:*"]]) == "quota_exceeded"
    assert code(world, "register_endpoint", ["bob", 60, False, "ann1"]) == "conflict"
    assert code(world, "keepalive_endpoint", ["gone"]) == "not_found"
    assert code(world, "unregister_endpoint", ["gone"]) == "not_found"
    assert code(world, "watch_endpoint", ["gone", []]) == "not_found"
    assert code(world, "online_users", b" " * 524_289) == "too_large"
    assert code(world, "online_users", user="ann") == "forbidden"
    world.registry.organizations["default"]["user:bad"] = b"nonsense"
    assert code(world, "sessions_of", ["user", "bad"]) == "corrupt_record"


def test_too_many_answers_and_paging_through_them() -> None:
    world = World()
    ranks = {f"d{number:05}": 0 for number in range(10_001)}
    world.online("d00000", kind="device")
    index = world.registry.organizations["default"]["online:device"]
    assert isinstance(index, dict)
    index.update(ranks)
    assert code(world, "online_devices") == "too_many"
    assert code(world, "status_devices") == "too_many"
    assert len(world.call("online_devices", {"limit": 10_000})) == 10_000
    assert world.call("online_devices", {"limit": 3, "cursor": "d09998"}) == ["d09999", "d10000"]
    assert list(world.call("status_devices", {"limit": 2, "cursor": "d00000"})) == ["d00001", "d00002"]
    index.pop("d10000")
    assert len(world.call("online_devices")) == 10_000


def test_lists_are_sorted_by_code_point_and_paged_over_both_indexes() -> None:
    world = World()
    names = ["b", "a", "Z", "ä", "\U0001f600", "中"]
    for number, name in enumerate(names):
        if number % 2:
            world.online(name)
        else:
            world.join("s", name)
    everybody = sorted(names)
    assert list(world.call("status_users")) == everybody
    seen: list[str] = []
    while page := list(world.call("status_users", {"limit": 2, "cursor": seen[-1] if seen else ""})):
        assert len(page) <= 2
        seen += page
    assert seen == everybody


# Rights: a user touches what is its own.


@pytest.mark.parametrize("method", SERVICE_ONLY)
def test_what_only_services_may(method: str) -> None:
    assert code(World(), method, user="ann") == "forbidden"


def test_operations_may_call_what_only_asks() -> None:
    params = {"uuid": "x", "kind": "user", "session": "s", "room": "r", "userId": "u", "userEndpointId": "e"}
    call = Call(SERVICE, Rules(), str)
    for method, row in METHODS.items():
        given = json.dumps({name: params[name] for name in row.params.__struct_encode_fields__ if name in params})
        try:
            _, command = decode_call(method, given.encode(), call, "default")
        except Refusal:
            assert not row.ops, method
        else:
            assert row.ops == (type(command) in QUESTIONS), method


def test_a_user_names_itself_or_nobody() -> None:
    world = World()
    assert world.call("register_endpoint", {"keepAliveSeconds": 60, "userEndpointId": "a1"}, user="ann") == {"id": "a1"}
    assert world.call("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60}, user="ann")["id"].startswith(
        "ann~"
    )
    assert len(world.call("list_endpoints", user="ann")) == 2
    assert code(world, "register_endpoint", {"userId": "bob", "keepAliveSeconds": 60}, user="ann") == "forbidden"
    assert code(world, "list_endpoints", {"userId": "bob"}, user="ann") == "forbidden"
    params = {"keepAliveSeconds": 60, "kind": "device"}
    assert code(world, "register_endpoint", params, user="ann") == "forbidden"


@pytest.mark.parametrize(
    ("endpoint", "expected"), [("bob1", "forbidden"), ("device1", "forbidden"), ("nobody", "not_found")]
)
def test_a_user_may_not_touch_anothers_endpoint(endpoint: str, expected: str) -> None:
    world = World()
    world.register("bob", "bob1")
    world.register("ann", "device1", kind="device")
    for method in ("keepalive_endpoint", "unregister_endpoint", "view_endpoint"):
        assert code(world, method, [endpoint], user="ann") == expected
    assert code(world, "watch_endpoint", [endpoint, ["*"]], user="ann") == expected
    assert world.call("keepalive_endpoint", ["bob1"], user="bob") is None


def test_an_endpoint_is_viewed_as_in_the_list() -> None:
    world = World()
    world.register("ann", "ann1", keepAliveSeconds=60)
    view = world.call("view_endpoint", ["ann1"], user="ann")
    assert [view] == world.call("list_endpoints", user="ann")
    assert view == {
        "id": "ann1",
        "userId": "ann",
        "organizationId": "default",
        "keepAliveSeconds": 60,
        "state": "HEALTHY",
        "version": view["version"],
    }


# Organizations.


def test_without_a_prefix_a_service_may_name_the_organization_and_a_user_may_not() -> None:
    world = World()
    world.register("ann", "ann1", organizationId="acme")
    assert world.stored("acme") == {"user:ann"}
    assert world.stored() == set()
    params = {"keepAliveSeconds": 60, "organizationId": "acme"}
    assert code(world, "register_endpoint", params, user="ann") == "forbidden"
    assert world.call("register_endpoint", {**params, "organizationId": "default"}, user="ann")


def test_a_service_reaches_an_endpoint_of_another_organization_by_its_id() -> None:
    world = World()
    world.register("ann", "ann1", organizationId="acme", keepAliveSeconds=60)
    world.registry.now_ms += 1000
    assert world.call("keepalive_endpoint", ["ann1"]) is None
    record = world.record("user:ann", "acme")
    assert record is not None
    assert record["endpoints"]["ann1"]["renewed_ms"] == 2000
    assert world.call("watch_endpoint", ["ann1", ["*"]]) is None
    assert code(world, "keepalive_endpoint", ["ann1"], user="ann") == "forbidden"
    world.say("users/endpoints/ann1/keepalive")
    assert world.call("unregister_endpoint", ["ann1"]) is None
    assert world.stored("acme") == set()
    assert world.all_acknowledged


def test_with_a_prefix_the_topic_names_the_organization() -> None:
    world = World(prefix="{organization}/")
    assert world.call("register_endpoint", ["ann", 60, False, "ann1"], prefix="acme/") == {"id": "ann1"}
    assert world.stored("acme") == {"user:ann"}
    params = {"userId": "ann", "keepAliveSeconds": 60, "organizationId": "other"}
    assert code(world, "register_endpoint", params, prefix="acme/") == "forbidden"
    assert world.call("register_endpoint", {**params, "organizationId": "acme"}, prefix="acme/")
    # Another tenant's endpoint is unknown, and its owner is not told of the attempt.
    assert code(world, "keepalive_endpoint", ["ann1"], prefix="other/") == "not_found"
    assert code(world, "unregister_endpoint", ["ann1"], prefix="other/") == "not_found"
    outputs = world.feed(message("other/users/endpoints/ann1/keepalive"))
    assert [output.topic for output in outputs] == ["other/users/endpoints/ann1"]
    assert told(outputs)["ann1"][0]["organizationId"] == "other"
    assert world.call("register_endpoint", ["bob", 60, False, "bob1"], prefix="other/") == {"id": "bob1"}
    assert code(world, "register_endpoint", ["bob", 60, False, "ann1"], prefix="other/") == "conflict"


def test_the_codes_are_the_contracts() -> None:
    assert {
        *("invalid_params", "unknown_method", "forbidden", "not_found", "conflict", "too_many", "too_large"),
        *("quota_exceeded", "corrupt_record"),
    } <= RPC_CODES
