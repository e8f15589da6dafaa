"""Two tenants on one Mosquitto, on the very files that are shipped: what one does the other does not hear."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.domain.topics import INPUTS
from bridge.settings import Topics
from tests.integration.stack import ROOT, Bridge, Client, Message
from tests.servers import MosquittoServer, RedisServer, free_port

Fresh = Callable[[str], str]

TENANTS = ("acme", "blue")
USERS = ("service", "ann", "lamp")
TEMPLATES = Topics().model_dump()


class ShippedBroker(MosquittoServer):
    """Mosquitto on ``mosquitto/tenants.conf``: ports and folders are the test's own, all else as it stands."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        tenants = directory / "tenants"
        tenants.mkdir(parents=True)
        self.ports = {"1884": free_port(), "1885": free_port(), "1883": self.port}
        text = (ROOT / "mosquitto" / "tenants.conf").read_text()
        text = re.sub(r"(?m)^listener (\d+)", lambda found: f"listener {self.ports[found[1]]}", text)
        text = text.replace("/etc/mosquitto/tenants/", f"{tenants.resolve()}/")
        self._lines = text.replace("/var/lib/mosquitto/", f"{directory.resolve()}/").splitlines()
        if os.geteuid() == 0:
            self._lines.insert(0, "user root")
        for tenant in TENANTS:
            (tenants / f"{tenant}.acl").write_text((ROOT / "mosquitto" / "tenants" / f"{tenant}.acl").read_text())
            self._passwords(tenants / f"{tenant}.passwords", tenant, USERS)
        self._passwords(tenants / "bridge.passwords", "bridge", ("bridge",))

    @staticmethod
    def _passwords(path: Path, word: str, users: tuple[str, ...]) -> None:
        path.touch()
        for user in users:
            subprocess.run(["mosquitto_passwd", "-b", path, user, f"{word}-{user}"], check=True)


class House:
    """The broker, the bridge, and ``world``, which stands on the bridge's listener and hears all of both tenants."""

    def __init__(self, broker: ShippedBroker, world: Client) -> None:
        self.world = world
        self._ports = dict(zip(TENANTS, (broker.ports["1884"], broker.ports["1885"]), strict=True))
        self._clients: list[Client] = []

    def client(self, tenant: str, user: str = "service", **options: Any) -> Client:
        client = Client(self._ports[tenant], login=(user, f"{tenant}-{user}"), **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("shipped")
    with RedisServer(folder / "redis") as redis, ShippedBroker(folder / "broker") as broker:
        world = Client(broker.port, login=("bridge", "bridge-bridge"))
        world.subscribe("#")
        given = {
            "CONFIG": str(ROOT / "config" / "bridge.tenants.toml"),
            "NAME": "bridge-1",
            "MQTT__PORT": str(broker.port),
            "MQTT__PASSWORD": "bridge-bridge",
            "REDIS__URL": redis.url,
            "REGISTRY_TOPICS": "true",
        }
        found = House(broker, world)
        try:
            with Bridge(folder / "bridge", world, given) as bridge:
                yield found
            assert "this is a bug" not in bridge.log, bridge.log
        finally:
            found.close()
            world.close()


class Tenant:
    """A tenant's own service, which hears all that it can, and an endpoint of its ann that watches everybody."""

    def __init__(self, house: House, name: str, endpoint: str) -> None:
        self.name = name
        self.house = house
        self.service = house.client(name)
        for topic_filter in ("#", "+/#", "$share/all/#", "acme/#", "blue/#", "operator/#"):
            self.service.subscribe(topic_filter)
        self.endpoint = endpoint
        params = {"userId": "ann", "userEndpointId": endpoint, "keepAliveSeconds": 600, "watch": ["*"]}
        assert self.service.rpc("register_endpoint", params) == {"id": endpoint}
        self.service.rpc("online_users")  # what follows from it has come before this answer

    def heard(self, mark: int) -> list[tuple[str, Message]]:
        """What it heard by the topic as the tenant means it, its own requests and their answers left out.

        Mosquitto 2.0.11 leaves the mount point on what it delivers, later ones take it off.
        """
        self.service.rpc("online_users")  # its answer comes after all that came before
        found = [(m.topic.removeprefix(f"{self.name}/"), m) for m in self.service.messages[mark:]]
        return [(topic, m) for topic, m in found if not topic.startswith(("rpc/", "replies/"))]


@pytest.fixture(scope="module")
def acme(house: House) -> Tenant:
    return Tenant(house, "acme", "ann~acme")


@pytest.fixture(scope="module")
def blue(house: House) -> Tenant:
    return Tenant(house, "blue", "ann~blue")


# Input -> what acme publishes there, and what its endpoint is told; an input that is not here is sent an empty object.
STORIES: dict[str, tuple[object, str]] = {
    "user": ("online", "UserPresenceChangedEvent"),
    "participant": ("online", "ParticipantPresenceChangedEvent"),
    "device": ("online", "DevicePresenceChangedEvent"),
    "user_status": ({"mood": 1}, "UserStatusChangedEvent"),
    "participant_status": ({"mood": 1}, "ParticipantStatusChangedEvent"),
    "device_status": ({"mood": 1}, "DeviceStatusChangedEvent"),
    "session": ({"type": "JoinSessionEvent", "sessionUsers": ["ann"]}, "JoinSessionEvent"),
    "keepalive": (b"", "UserEndpointExpiredEvent"),
}


@pytest.mark.parametrize("source", INPUTS)
def test_whatever_one_tenant_publishes_the_other_hears_nothing(source: str, acme: Tenant, blue: Tenant) -> None:
    payload, told = STORIES.get(source, ({}, ""))
    ids = {"user": "ann", "method": "list_endpoints", "endpoint": "ann~late"}
    topic = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], "ann"), TEMPLATES[source])
    mine, theirs = acme.service.mark(), blue.service.mark()
    assert acme.service.publish(topic, payload) < 0x80
    heard = acme.heard(mine)
    assert not blue.heard(theirs)
    if told:
        assert told in {m.type for place, m in heard if place.startswith("users/endpoints/") and m.payload}
        assert {m.json["organizationId"] for _, m in heard if b'"organizationId"' in m.payload} == {"acme"}


def is_something(answer: Any) -> bool:
    return any(answer.values()) if isinstance(answer, dict) else bool(answer)


def test_what_one_tenant_knows_the_other_does_not(acme: Tenant, blue: Tenant) -> None:
    acme.service.publish("presence/users/ann", "online")
    acme.service.publish("sessions/s", {"type": "JoinSessionEvent", "sessionUsers": ["ann"]})
    acme.service.publish("presence/devices/only-acme", "online")
    asked = {
        "online_users": None,
        "busy_users": None,
        "status_users": None,
        "online_devices": None,
        "status_devices": None,
        "sessions_of": {"kind": "user", "uuid": "ann"},
        "session_members": {"session": "s"},
    }
    for method, params in asked.items():
        assert is_something(acme.service.rpc(method, params)), method
        assert not is_something(blue.service.rpc(method, params)), method
    late = acme.house.client("blue")
    late.subscribe("registry/#")
    late.rpc("online_users")
    assert not [m for m in late.messages if m.topic.endswith("registry/devices/only-acme")]


def test_an_endpoint_of_another_tenant_cannot_be_reached(acme: Tenant, blue: Tenant) -> None:
    mine, theirs = acme.service.mark(), blue.service.mark()
    taken = {"userId": "ann", "userEndpointId": acme.endpoint, "keepAliveSeconds": 60}
    assert blue.service.refused("register_endpoint", taken).code == "conflict"
    assert blue.service.refused("register_endpoint", {**taken, "organizationId": "acme"}).code == "forbidden"
    for method in ("keepalive_endpoint", "unregister_endpoint"):
        assert blue.service.refused(method, {"userEndpointId": acme.endpoint}).code == "not_found"
    assert blue.service.refused("watch_endpoint", {"userEndpointId": acme.endpoint, "watch": ["*"]}).code == "not_found"
    event = {"type": "LampDimmedEvent", "id": "1"}
    for addressed in ({"userEndpointId": acme.endpoint}, {"userEndpointId": acme.endpoint, "organizationId": "acme"}):
        blue.service.refused("send_event", {"event": event, "userId": "ann", **addressed})
    assert blue.service.rpc("list_endpoints", {"userId": "ann"})[0]["id"] == blue.endpoint
    blue.service.publish(f"users/endpoints/{acme.endpoint}/keepalive")
    # Told as for an endpoint that nobody has, and where the question came from.
    [(topic, told)] = blue.heard(theirs)[-1:]
    assert (topic.removesuffix("/keepalive"), told.type) == (
        f"users/endpoints/{acme.endpoint}",
        "UserEndpointExpiredEvent",
    )
    assert not acme.heard(mine)


FORGED = (
    "blue/replies/x",
    "acme/replies/x",
    "users/endpoints/ann~blue",
    "../blue/replies/x",
    "replies",
    "replies/",
    "replies/+",
    "replies/#",
    "/replies/x",
    "$SYS/x",
    "+/replies/x",
    "clients/ann/replies/x",
    "operator/bridge/bridge-1/state",
)


def test_a_forged_response_topic_leads_nowhere(house: House, acme: Tenant, blue: Tenant) -> None:
    world, mark, theirs = house.world, house.world.mark(), blue.service.mark()
    for forged in FORGED:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.__dict__["ResponseTopic"] = forged  # paho checks some of them itself, the broker does not
        assert acme.service.wait(acme.service.send("rpc/online_users", b"", properties=properties)) < 0x80
    assert not blue.heard(theirs)
    acme.service.rpc("online_users")
    world.expect(lambda m: m.topic.endswith(acme.service.replies), mark=mark, what="that answer")
    expected = ("acme/rpc/", f"acme/{acme.service.replies}", "blue/rpc/", f"blue/{blue.service.replies}")
    others = [m for m in world.messages[mark:] if not m.topic.startswith(expected)]
    assert {m.topic for m in others} == {"operator/bridge/bridge-1/rejected"}
    assert {m.json["reason"].partition(":")[0] for m in others} == {"not_allowed"}


def test_a_right_response_topic_is_the_tenants_own(house: House, acme: Tenant, blue: Tenant) -> None:
    mark, theirs = house.world.mark(), blue.service.mark()
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = "replies/blue/here"
    acme.service.send("rpc/online_users", b"", properties=properties)
    house.world.expect(lambda m: m.topic == "acme/replies/blue/here", mark=mark, what="the answer")
    assert not blue.heard(theirs)


def test_a_will_stays_at_home(house: House, acme: Tenant, blue: Tenant) -> None:
    lamp = house.client("acme", "lamp", will=("presence/devices/lamp", "offline"))
    assert lamp.publish("presence/devices/lamp", "online") < 0x80
    mine, theirs = acme.service.mark(), blue.service.mark()
    lamp.vanish()
    acme.service.expect(lambda m: b'"cause":"disconnected"' in m.payload, mark=mine, what="the lamp's end")
    assert not blue.heard(theirs)


def test_a_tenants_user_may_only_what_is_its_own(house: House, acme: Tenant) -> None:
    ann = house.client("acme", "ann", client_id="acme")  # so that ann~acme is its endpoint
    ann.subscribe("#")
    assert ann.publish("presence/users/ann/status", "5") < 0x80
    told = ann.expect(lambda m: m.topic.endswith("users/endpoints/ann~acme"), what="its endpoint's event")
    assert told.type == "UserStatusChangedEvent"
    for topic in ("presence/users/bob", "acme/presence/users/ann", "blue/presence/users/ann", "users/endpoints/x"):
        assert ann.publish(topic, "online") == 0x87, topic
    assert {m.topic.removeprefix("acme/") for m in ann.messages} == {"users/endpoints/ann~acme"}


def test_the_session_of_another_tenants_client_brings_nothing(house: House, acme: Tenant) -> None:
    """Client ids are one name space over all listeners, so a session can be taken over; what waits there can not."""
    acme.service.rpc("register_endpoint", {"userId": "ann", "userEndpointId": "ann~phone", "keepAliveSeconds": 600})
    phone = house.client("acme", "ann", client_id="phone", durable=True)
    phone.subscribe("users/endpoints/ann~phone")
    phone.vanish()
    acme.service.publish("presence/users/ann/status", "6")
    acme.service.rpc("online_users")
    thief = house.client("blue", "ann", client_id="phone", durable=True)
    acme.service.publish("presence/users/ann/status", "7")
    acme.service.rpc("online_users")
    thief.publish("presence/users/ann", "online")
    assert thief.messages == []
