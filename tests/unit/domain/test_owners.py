"""Who holds an endpoint id: one at most, with a claim or without, in whatever order and by whatever configuration."""

import pytest

from bridge.domain.rules import Rules
from bridge.domain.values import Owner
from tests.unit.world import RpcError, World, message, told, types_of

ID = "ann~tab"
KEEPALIVE = f"users/endpoints/{ID}/keepalive"


def register(user: str, *, kind: str = "user", organization: str = "default", endpoint: str = ID) -> dict[str, object]:
    return {
        "userId": user,
        "kind": kind,
        "keepAliveSeconds": 60,
        "userEndpointId": endpoint,
        "organizationId": organization,
    }


ANN, DEVICE = register("ann"), register("ann", kind="device")
STRANGER, ABROAD = register("bob"), register("ann", organization="acme")
OTHERS = pytest.mark.parametrize("other", [DEVICE, STRANGER, ABROAD], ids=["device", "stranger", "abroad"])


def asked(world: World, params: dict[str, object], method: str = "register_endpoint") -> str:
    try:
        world.call(method, params)
    except RpcError as error:
        return error.code
    return "taken"


def holders(world: World) -> list[str]:
    """Everybody whose record holds the id."""
    return [
        f"{organization}/{key}"
        for organization in world.registry.organizations
        for key in sorted(world.stored(organization))
        if ID in (world.record(key, organization) or {}).get("endpoints", {})
    ]


@pytest.mark.parametrize("rules", [Rules(bound_ids=True), Rules()], ids=["bound", "free"])
def test_a_user_at_home_needs_no_claim_for_an_id_that_names_it(rules: Rules) -> None:
    world = World(rules)
    assert asked(world, ANN) == "taken"
    assert world.registry.owners == {}
    assert world.call("keepalive_endpoint", [ID]) is None
    assert told(world.feed(message(KEEPALIVE, qos=0))) == {}
    assert world.call("view_endpoint", [ID])["userId"] == "ann"
    world.call("unregister_endpoint", [ID])
    assert asked(world, ANN) == "taken"
    assert types_of(world.pass_seconds(60)[ID]) == ["UserEndpointExpiredEvent"]
    assert types_of(told(world.feed(message(KEEPALIVE, qos=0)))[ID]) == ["UserEndpointExpiredEvent"]
    assert (world.registry.owners, world.stored()) == ({}, set())


@OTHERS
def test_nobody_else_gets_it_while_the_user_has_it_and_the_other_way_round(other: dict[str, object]) -> None:
    world = World()
    assert asked(world, ANN) == "taken"
    world.registry.now_ms += 61_000
    assert asked(world, other) == "conflict"
    assert holders(world) == ["default/user:ann"]
    assert world.registry.owners == {}
    world.call("unregister_endpoint", [ID])
    assert asked(world, other) == "taken"
    assert list(world.registry.owners) == [ID]
    world.registry.now_ms += 61_000
    assert asked(world, ANN) == "conflict"
    assert len(holders(world)) == 1
    assert world.call("keepalive_endpoint", [ID]) is None  # by a call at home, wherever it is held
    assert told(world.feed(message(KEEPALIVE, qos=0))) == {}
    world.call("unregister_endpoint", [ID])
    assert world.registry.owners == {}
    assert asked(world, ANN) == "taken"


@OTHERS
@pytest.mark.parametrize("first", [True, False])
def test_two_who_want_it_in_one_batch(other: dict[str, object], first: bool) -> None:
    world = World()
    world.feed(*(message("rpc/register_endpoint", one) for one in ((ANN, other) if first else (other, ANN))))
    assert world.codes == ["conflict"]
    [holder] = holders(world)
    assert world.registry.owners.keys() == (set() if holder == "default/user:ann" else {ID})
    assert world.counts["conflicts"] <= 1


@OTHERS
def test_a_claim_left_over_takes_nothing_from_the_user(other: dict[str, object]) -> None:
    world = World()
    asked(world, ANN)
    left = Owner(str(other["organizationId"]), other["kind"], str(other["userId"]), world.registry.now_ms)  # type: ignore[arg-type]  # one of KINDS
    world.registry.owners[ID] = left
    assert told(world.feed(message(KEEPALIVE, qos=0))) == {}
    assert world.call("keepalive_endpoint", [ID]) is None
    assert world.call("register_endpoint", ANN) == {"id": ID}
    world.call("unregister_endpoint", [ID])
    assert asked(world, ANN) == "conflict"  # whoever claims it may be about to commit
    world.registry.now_ms += 60_000
    assert asked(world, ANN) == "taken"
    assert holders(world) == ["default/user:ann"]
    assert asked(world, other) == "conflict"


def test_a_claim_left_over_leads_home_from_where_it_points() -> None:
    world = World()
    asked(world, ANN)
    world.registry.owners[ID] = Owner("acme", "user", "bob", 0)
    world.call("register_endpoint", register("bob", organization="acme", endpoint="b"))
    assert asked(world, {"userEndpointId": ID, "reason": "x"}, "unregister_endpoint") == "taken"
    assert holders(world) == []
    assert asked(world, {"userEndpointId": ID}, "keepalive_endpoint") == "not_found"


@pytest.mark.parametrize("other", [DEVICE, STRANGER], ids=["device", "stranger"])
def test_changing_hands_in_one_batch(other: dict[str, object]) -> None:
    world = World()
    leave = message("rpc/unregister_endpoint", [ID])
    world.feed(message("rpc/register_endpoint", ANN), leave, message("rpc/register_endpoint", other))
    assert (world.codes, holders(world)) == ([], [f"default/{other['kind']}:{other['userId']}"])
    world.call("unregister_endpoint", [ID])
    world.feed(message("rpc/register_endpoint", other), leave, message("rpc/register_endpoint", ANN))
    assert (world.codes, holders(world), world.registry.owners) == ([], ["default/user:ann"], {})


def test_what_an_older_bridge_claimed_stays_its_owners() -> None:
    """It claimed every id."""
    world = World()
    asked(world, ANN)
    world.registry.owners[ID] = Owner("default", "user", "ann", 1)
    assert asked(world, STRANGER) == "conflict"
    world.call("unregister_endpoint", [ID])
    assert asked(world, ANN) == "taken"
    world.pass_seconds(60)
    world.registry.now_ms += 61_000
    assert asked(world, STRANGER) == "taken"
    assert holders(world) == ["default/user:bob"]


def test_another_default_organization_makes_no_other_home() -> None:
    world = World()
    asked(world, ANN)
    after = world.restarted(default_organization="acme")
    assert asked(after, {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": ID}) == "conflict"
    assert holders(after) == ["default/user:ann"]
    params = {"userId": "eve", "keepAliveSeconds": 60, "userEndpointId": "eve~1"}
    assert asked(after, params) == "taken"
    assert after.registry.owners["eve~1"].organization == "acme"
