"""Clients that want what is not theirs, on a real Mosquitto with the production files that are shipped.

Of these only the address, the TLS of the listener and the folders are the test's own. Whoever tries gets nothing and
breaks nothing: its victim hears what it should and no more, and the bridge goes on.
"""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis import Redis

from tests.integration.stack import ROOT, Bridge, Client, Message
from tests.servers import MosquittoServer, RedisServer

USERS = ("bridge", "service", "ann", "eve", "a~b", "ann~tab")
DENIED = 0x87


class ProductionBroker(MosquittoServer):
    """Mosquitto on ``mosquitto/mosquitto.production.conf`` and ``mosquitto/acl``."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True)
        text = (ROOT / "mosquitto" / "mosquitto.production.conf").read_text()
        text = re.sub(r"(?m)^(certfile|keyfile|tls_version) .*\n", "", text)
        text = text.replace("listener 8883\n", f"listener {self.port} 127.0.0.1\n")
        text = text.replace("/etc/mosquitto/", f"{directory.resolve()}/")
        self._lines = text.replace("/var/lib/mosquitto/", f"{directory.resolve()}/").splitlines()
        if os.geteuid() == 0:
            self._lines.insert(0, "user root")
        (directory / "acl").write_text((ROOT / "mosquitto" / "acl").read_text())
        passwords = directory / "passwords"
        passwords.touch()
        for user in USERS:
            subprocess.run(["mosquitto_passwd", "-b", passwords, user, f"password of {user}"], check=True)


class User(Client):
    """A client under a user's name, with its own branch for answers."""

    def __init__(self, port: int, user: str, *filters: str, **options: Any) -> None:
        super().__init__(port, login=(user, f"password of {user}"), **options)
        self.user = user
        self.replies = f"clients/{user}/{self.replies}"
        for topic_filter in (self.replies, *filters):
            self.subscribe(topic_filter)

    def ask(self, method: str, params: object = None) -> Any:
        payload = b"" if params is None else json.dumps(params).encode()
        return self.request(f"clients/{self.user}/rpc/{method}", payload)

    def heard(self, mark: int = 0) -> list[Message]:
        """What came but for its answers; the answer that is asked for here comes after all that the bridge had sent."""
        assert "result" in self.ask("list_endpoints")
        return self.since(mark)


class House:
    """The stack, ``world`` under the bridge's name, a service, ann with her one endpoint, and whoever comes."""

    def __init__(self, broker: ProductionBroker, redis: RedisServer, world: Client) -> None:
        self.broker, self.redis, self.world = broker, redis, world
        self.bridge: Bridge
        self._clients: list[Client] = []
        self.service = Client(broker.port, login=("service", "password of service"))
        self._clients.append(self.service)
        self.tab = secrets.token_urlsafe(16)
        self.endpoint = f"ann~{self.tab}"

    def user(self, name: str, *filters: str, **options: Any) -> User:
        user = User(self.broker.port, name, *filters, **options)
        self._clients.append(user)
        return user

    def welcome_ann(self) -> None:
        self.ann = self.user("ann", "#", client_id=self.tab)
        params = {"keepAliveSeconds": 600, "userEndpointId": self.endpoint, "watch": ["*"]}
        assert self.ann.ask("register_endpoint", params) == {"result": {"id": self.endpoint}}

    def tell_ann(self) -> Message:
        """Let something happen that ann watches, and wait until she hears of it."""
        mark, lamp = self.ann.mark(), f"lamp-{secrets.token_hex(4)}"
        assert self.service.publish(f"presence/devices/{lamp}", "online") < 0x80
        return self.ann.expect(lambda m: b"DevicePresenceChangedEvent" in m.payload, mark=mark, what="ann's event")

    def rejections(self, mark: int) -> list[str]:
        """The codes of what was rejected after a mark of ``world``."""
        self.service.rpc("online_users")
        self.world.expect(
            lambda m: m.topic == self.service.replies and m.at >= self.service.messages[-1].at - 60, mark=mark
        )
        return [m.json["reason"].partition(":")[0] for m in self.world.since(mark, "bridge/bridge-1/rejected")]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("isolation")
    with RedisServer(folder / "redis") as redis, ProductionBroker(folder / "broker") as broker:
        world = Client(broker.port, login=("bridge", "password of bridge"))
        world.subscribe("#")
        given = {
            "CONFIG": str(ROOT / "config" / "bridge.production.toml"),
            "NAME": "bridge-1",
            "MQTT__HOST": "127.0.0.1",
            "MQTT__PORT": str(broker.port),
            "MQTT__TLS": "false",
            "MQTT__PASSWORD": "password of bridge",
            "REDIS__URL": redis.url,
            "REGISTRY_TOPICS": "true",
        }
        found = House(broker, redis, world)
        try:
            with Bridge(folder / "bridge", world, given) as found.bridge:
                found.welcome_ann()
                yield found
            assert "this is a bug" not in found.bridge.log, found.bridge.log
        finally:
            found.close()
            world.close()


@pytest.fixture(autouse=True)
def _nothing_broke(house: House) -> Iterator[None]:
    """After each attack ann still hears of what she watches, on her endpoint and nowhere else."""
    mark = house.ann.mark()
    yield
    assert house.tell_ann().topic == f"users/endpoints/{house.endpoint}"
    assert {m.topic for m in house.ann.heard(mark)} == {f"users/endpoints/{house.endpoint}"}


EVERYTHING = (
    "#",
    "+/#",
    "users/endpoints/+",
    "clients/#",
    "replies/#",
    "registry/#",
    "bridge/#",
    "$SYS/#",
    "$share/g/#",
)


def test_who_subscribes_to_everything_hears_nothing(house: House) -> None:
    eve = house.user("eve", *EVERYTHING, f"users/endpoints/{house.endpoint}")
    house.tell_ann()
    house.ann.ask("list_endpoints")
    house.service.rpc("online_users")
    assert eve.heard() == []


def test_who_subscribes_to_everything_hears_its_own(house: House) -> None:
    eve = house.user("eve", "#", client_id="tablet")
    eve.ask("register_endpoint", {"keepAliveSeconds": 600, "userEndpointId": "eve~tablet", "watch": ["*"]})
    house.tell_ann()
    other = house.user("eve", "#", client_id="another")
    mark = eve.mark()
    house.tell_ann()
    assert {m.topic for m in eve.heard(mark)} == {"users/endpoints/eve~tablet"}
    assert other.heard() == []
    eve.ask("unregister_endpoint", {"userEndpointId": "eve~tablet"})


def test_who_joins_a_share_group_takes_nothing_from_others(house: House) -> None:
    topics = (f"users/endpoints/{house.endpoint}", "presence/#", "rpc/#", "#")
    thief = house.user("eve", *(f"$share/{group}/{topic}" for group in ("bridge", "g") for topic in topics))
    mark = house.ann.mark()
    for number in range(20):
        assert house.service.publish("presence/devices/shared/status", number) < 0x80
    heard = [m.json["status"] for m in house.ann.heard(mark) if m.type == "DeviceStatusChangedEvent"]
    assert heard == list(range(20))
    assert thief.heard() == []


FORGED = (
    "users/endpoints/{ann}",
    "users/endpoints/{ann}/keepalive",
    "presence/users/ann",
    "presence/users/ann/status",
    "presence/participants/ann",
    "presence/devices/lamp",
    "presence/devices/lamp/status",
    "presence/rooms/r",
    "sessions/s",
    "sessions/s/participants/ann/status",
    "clients/ann/rooms/r",
    "clients/ann/sessions/s/status",
    "clients/ann/rpc/list_endpoints",
    "clients/ann/replies/x",
    "clients/eve/replies/x",
    "rpc/online_users",
    "replies/x",
    "registry/users/ann",
    "bridge/bridge-1/state",
    "bridge/bridge-1/rejected",
    "anything",
)


@pytest.mark.parametrize("retain", [False, True], ids=["passing", "retained"])
def test_a_forged_publish_is_refused_and_stays_nowhere(house: House, retain: bool) -> None:
    eve = house.user("eve")
    mark = house.world.mark()
    for topic in FORGED:
        found = topic.format(ann=house.endpoint)
        assert eve.publish(found, "forged", retain=retain) == DENIED, found
    eve.heard()
    house.service.rpc("online_users")
    assert not [m for m in house.world.messages[mark:] if m.payload == b"forged"]
    late = Client(house.broker.port, login=("bridge", "password of bridge"))
    late.subscribe("#")
    late.rpc("online_users")
    late.close()
    assert not [m for m in late.messages if m.payload == b"forged"]


@pytest.mark.parametrize("topic", ["presence/users/ann", "users/endpoints/{ann}", "bridge/bridge-1/state"])
def test_a_forged_will_is_never_published(house: House, topic: str) -> None:
    assert house.ann.publish("presence/users/ann", "online") < 0x80
    forger = house.user("eve", will=(topic.format(ann=house.endpoint), "offline"))
    honest = house.user("eve", will=("presence/users/eve", "offline"))
    assert honest.publish("presence/users/eve", "online") < 0x80
    mark = house.world.mark()
    forger.vanish()
    honest.vanish()
    # Eve's own will comes, so that of the connection that broke before it would have come.
    house.world.expect(lambda m: (m.topic, m.payload) == ("presence/users/eve", b"offline"), mark=mark, what="her will")
    assert [m.topic for m in house.world.since(mark) if m.payload == b"offline"] == ["presence/users/eve"]
    assert "ann" in house.service.rpc("online_users")


def test_a_guess_at_the_bridges_client_id_meets_nobody(house: House) -> None:
    for guess in ("bridge", "bridge-1", "endpoint-bridge", "bridge-1-0", "eb"):
        eve = house.user("eve", "#", client_id=guess, durable=True)
        house.tell_ann()
        assert eve.heard() == []
        eve.close()
    assert "taken over" not in house.bridge.log
    assert "without a word" not in house.bridge.log


def test_the_bridges_client_id_is_unguessable_and_told_to_nobody(house: House) -> None:
    with Redis.from_url(house.redis.url, decode_responses=True) as redis:
        client_id = str(redis.hget("eb:facts", "client_id"))
    assert re.fullmatch(r"endpoint-bridge-[\w-]{24}", client_id)
    assert client_id not in house.bridge.log
    assert not [m for m in house.world.messages if client_id.encode() in m.payload]


def test_another_users_client_id_brings_nothing(house: House) -> None:
    """Client ids are one name space: eve takes ann's session over, and nothing of it is sent to her."""
    client_id = secrets.token_urlsafe(8)
    phone = house.user("ann", "#", client_id=client_id, durable=True)
    phone.ask("register_endpoint", {"keepAliveSeconds": 600, "userEndpointId": f"ann~{client_id}", "watch": ["*"]})
    phone.vanish()
    house.tell_ann()  # and the same for the phone, which waits in its session
    thief = house.user("eve", "#", client_id=client_id, durable=True)
    house.tell_ann()
    assert thief.heard() == []
    thief.vanish()
    again = house.user("ann", "#", client_id=client_id, durable=True)
    house.tell_ann()
    assert {m.topic for m in again.heard()} == {f"users/endpoints/ann~{client_id}"}
    again.ask("unregister_endpoint", {"userEndpointId": f"ann~{client_id}"})
    again.close()


@pytest.mark.parametrize("client_id", ["+", "#", "%u", "../{tab}", "{tab}/", "x/keepalive"])
def test_a_crafted_client_id_is_only_a_name(house: House, client_id: str) -> None:
    eve = house.user("eve", "#", client_id=client_id.format(tab=house.tab))
    house.tell_ann()
    assert [m for m in eve.messages if "replies/" not in m.topic] == []


def test_a_name_with_a_tilde_reaches_into_nothing(house: House) -> None:
    """``ann~tab`` with the client id ``x`` reads ``ann~tab~x``, which nobody can register."""
    sly = house.user("ann~tab", "#", client_id="x")
    for asking, user in ((sly, "ann~tab"), (house.user("a~b"), "a~b")):
        refused = asking.ask("register_endpoint", {"keepAliveSeconds": 600})["error"]
        assert refused["code"] == "invalid_params"
        assert "userId can have no endpoint here" in refused["message"], user
    for endpoint in ("ann~tab~x", "ann~x~y"):
        taken = house.ann.ask("register_endpoint", {"keepAliveSeconds": 600, "userEndpointId": endpoint})
        assert taken["error"]["code"] == "invalid_params"
    house.tell_ann()
    assert sly.heard() == []


def test_a_response_topic_on_somebodys_endpoint_leads_nowhere(house: House) -> None:
    eve = house.user("eve")
    mark = house.world.mark()
    forged = (
        f"users/endpoints/{house.endpoint}",
        f"users/endpoints/{house.endpoint}/keepalive",
        "presence/users/ann",
        "clients/ann/replies/x",
        "clients/eve/replies/../../ann/replies/x",
        "clients/eve/replies/+",
        "replies/x",
        "rpc/online_users",
        "bridge/bridge-1/state",
    )
    harmless = "clients/eve/replies/../../ann/replies/x"  # levels like any other: MQTT knows no way up
    for topic in forged:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.__dict__["ResponseTopic"] = topic  # paho checks some of them itself, the broker does not
        assert eve.wait(eve.send("clients/eve/rpc/list_endpoints", b"", properties=properties)) < 0x80
    eve.heard()

    def said() -> set[str]:
        return {m.topic for m in house.world.messages[mark:] if m.topic in forged}

    house.world.until(said, what="the answer that may go")
    assert said() == {harmless}
    assert house.rejections(mark) == ["not_allowed"] * (len(forged) - 1)


def test_what_is_forged_within_a_message_is_refused(house: House) -> None:
    eve = house.user("eve")
    mark = house.world.mark()
    entered = {"category": "online", "topicId": "r", "sender": {"_id": "ann"}, "content": {"id": "p1"}}
    assert eve.publish("clients/eve/rooms/r", entered) < 0x80
    assert eve.publish("presence/users/eve", {"type": "USER_CONNECTED", "userUuid": "ann"}) < 0x80
    asked = {
        "forbidden": [
            ("register_endpoint", {"userId": "ann", "keepAliveSeconds": 60}),
            ("register_endpoint", {"kind": "device", "keepAliveSeconds": 60}),
            ("list_endpoints", {"userId": "ann"}),
            ("online_users", {}),
            ("keepalive_endpoint", {"userEndpointId": house.endpoint}),
            ("unregister_endpoint", {"userEndpointId": house.endpoint}),
            ("view_endpoint", {"userEndpointId": house.endpoint}),
            ("watch_endpoint", {"userEndpointId": house.endpoint, "watch": []}),
        ],
        "invalid_params": [("register_endpoint", {"userEndpointId": house.endpoint, "keepAliveSeconds": 60})],
    }
    for code, calls in asked.items():
        for method, params in calls:
            assert eve.ask(method, params)["error"]["code"] == code, (method, params)
    assert house.service.rpc("room_parties", {"room": "r"})["users"] == {}
    assert len(house.rejections(mark)) == 2


def test_a_service_cannot_write_past_the_bridge(house: House) -> None:
    for topic in (f"users/endpoints/{house.endpoint}", "registry/users/ann", "bridge/bridge-1/state", "replies/x"):
        assert house.service.publish(topic, "forged", retain=True) == DENIED, topic
