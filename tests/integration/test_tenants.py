"""Many organizations with one bridge: the prefix names them, and nothing crosses from one to another."""

from collections.abc import Callable

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.integration.stack import Client, Stack

Fresh = Callable[[str], str]


@pytest.fixture
def acme(tenants: Stack, fresh: Fresh) -> Client:
    return tenants.client(prefix=f"{fresh('acme')}/")


@pytest.fixture
def blue(tenants: Stack, fresh: Fresh) -> Client:
    return tenants.client(prefix=f"{fresh('blue')}/")


def register(client: Client, user: str, endpoint: str, **more: object) -> None:
    params = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600, **more}
    assert client.rpc("register_endpoint", params) == {"id": endpoint}


def test_the_same_ids_are_others_in_another_organization(
    tenants: Stack, acme: Client, blue: Client, fresh: Fresh
) -> None:
    world, one, two = tenants.world, fresh("e1"), fresh("e2")
    register(acme, "ann", one, watch=["device:lamp"])
    register(blue, "ann", two, watch=["*"])
    mark = world.mark()
    acme.publish(f"{acme.prefix}presence/devices/lamp", "online")
    assert acme.rpc("online_devices") == ["lamp"]
    assert blue.rpc("online_devices") == []
    acme.publish(f"{acme.prefix}sessions/s", {"type": "JoinSessionEvent", "sessionUsers": ["ann"]})
    assert acme.rpc("busy_users") == ["ann"]
    assert blue.rpc("busy_users") == []
    assert blue.rpc("sessions_of", {"kind": "user", "uuid": "ann"}) == []
    world.expect(lambda m: m.topic == f"{acme.prefix}user/ann/{one}" and m.type == "JoinSessionEvent", mark=mark)
    heard = [m for m in world.since(mark) if "/user/" in m.topic]
    assert {m.topic for m in heard} == {f"{acme.prefix}user/ann/{one}"}
    assert {m.json["organizationId"] for m in heard} == {acme.prefix.rstrip("/")}
    blue.publish(f"{blue.prefix}presence/users/ann", "online")
    assert blue.rpc("online_users") == ["ann"]
    assert acme.rpc("online_users") == []
    found = world.expect(lambda m: m.topic == f"{blue.prefix}user/ann/{two}", mark=mark)
    assert found.type == "UserPresenceChangedEvent"


def test_an_endpoint_of_another_organization_cannot_be_touched(acme: Client, blue: Client, fresh: Fresh) -> None:
    endpoint = fresh("e")
    register(acme, "ann", endpoint)
    params = {"userId": "ann", "userEndpointId": endpoint, "keepAliveSeconds": 60}
    assert blue.refused("register_endpoint", params).code == "conflict"
    for method in ("keepalive_endpoint", "unregister_endpoint"):
        assert blue.refused(method, {"userEndpointId": endpoint}).code == "not_found"
    assert blue.refused("list_endpoints", {"userId": "ann", "organizationId": "acme"}).code == "invalid_params"
    mine = acme.prefix.rstrip("/")
    assert blue.refused("register_endpoint", {**params, "organizationId": mine}).code == "forbidden"
    register(acme, "ann", endpoint, organizationId=mine)  # its own may be named
    [view] = acme.rpc("list_endpoints", {"userId": "ann"})
    assert (view["id"], view["organizationId"]) == (endpoint, mine)


def test_a_late_keepalive_makes_a_sick_one_healthy(tenants: Stack, acme: Client, fresh: Fresh) -> None:
    """Within grace an endpoint is sick, not gone; told on the topics of its user."""
    world, late, other = tenants.world, fresh("late"), fresh("other")
    register(acme, "ann", other)
    mark = world.mark()
    register(acme, "ann", late, keepAliveSeconds=1)

    def states() -> dict[str, str]:
        return {view["id"]: view["state"] for view in acme.rpc("list_endpoints", {"userId": "ann"})}

    def changed_to(state: str) -> dict[str, object]:
        found: dict[str, object] = world.expect(
            lambda m: (
                m.topic == f"{acme.prefix}user/ann/{other}"
                and m.type == "UserEndpointStateChangedEvent"
                and m.json["state"] == state
            ),
            mark=mark,
            what=state,
        ).json
        return found

    assert changed_to("SICK")["previous"] == "HEALTHY"
    assert states() == {late: "SICK", other: "HEALTHY"}
    acme.publish(f"{acme.prefix}users/endpoints/{late}/keepalive")
    assert changed_to("HEALTHY")["previous"] == "SICK"
    assert late in states()
    acme.rpc("unregister_endpoint", {"userEndpointId": late})
    for where in (late, other):
        world.expect(
            lambda m, where=where: m.topic == f"{acme.prefix}user/ann/{where}" and "Unregistered" in m.type,
            mark=mark,
            what=f"the end told to {where}",
        )


def test_a_keepalive_of_nobody_has_no_topic_to_be_answered_on(tenants: Stack, acme: Client, fresh: Fresh) -> None:
    """The topic names the user, and nobody knows whose that endpoint was."""
    mark = tenants.world.mark()
    acme.publish(f"{acme.prefix}users/endpoints/{fresh('nobody')}/keepalive")
    assert acme.rpc("online_users") == []
    register(acme, "ann", fresh("e"))
    acme.publish(f"{acme.prefix}presence/users/ann", "online")
    tenants.world.expect(lambda m: m.topic == f"{acme.prefix}user/ann/{fresh('e')}", mark=mark)
    assert len([m for m in tenants.world.since(mark) if m.topic.startswith(acme.prefix)]) == 1


@pytest.mark.parametrize("bad", ["a b", "x" * 65, "\u00e9"])
def test_a_name_that_is_no_organization_is_rejected(bad: str, tenants: Stack, acme: Client) -> None:
    mark = tenants.world.mark()
    acme.publish(f"{bad}/presence/users/ann", "online")
    acme.rpc("online_users")
    report = tenants.world.expect(lambda m: m.topic == "default/bridge/b1/rejected", mark=mark, what="a report")
    assert report.json["topic"] == f"{bad}/presence/users/ann"


def test_an_answer_stays_in_the_callers_organization(tenants: Stack, acme: Client, blue: Client) -> None:
    world = tenants.world
    world.subscribe("+/replies/#")
    mark = world.mark()
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "replies/here"
    acme.send(f"{acme.prefix}rpc/online_users", b"", properties=properties)
    found = world.expect(lambda m: m.topic.endswith("replies/here"), mark=mark)
    assert found.topic == f"{acme.prefix}replies/here"
    properties.ResponseTopic = f"{blue.prefix}replies/there"
    acme.send(f"{acme.prefix}rpc/online_users", b"", properties=properties)
    world.expect(
        lambda m: m.topic.endswith("/rejected") and m.json["reason"].startswith("not_allowed"), mark=mark, what="report"
    )
    assert not [m for m in world.messages[mark:] if m.topic.endswith("there")]
