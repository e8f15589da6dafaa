"""Presence on a real broker where connections end badly: taken over, lost with their broker, long gone."""

import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.integration.stack import Client, Message, Stack, stack

Fresh = Callable[[str], str]
LEASE_SECONDS = 3


@pytest.fixture(scope="module")
def leased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Connections have a lease, and more than four flips in a minute are too many."""
    with stack(
        tmp_path_factory.mktemp("leased"),
        durable=True,
        broker_lines="autosave_interval 1",
        PRESENCE__LEASE_SECONDS=str(LEASE_SECONDS),
        PRESENCE__FLAP_LIMIT="4",
        ENDPOINTS__DEFAULT_WATCH='["*"]',
    ) as found:
        found.world.rpc("register_endpoint", {"userId": "eve", "userEndpointId": "eve1", "keepAliveSeconds": 3600})
        yield found


def presence(messages: list[Message], uuid: str) -> list[tuple[str, bool]]:
    return [
        (message.json["cause"], message.json["online"])
        for message in messages
        if message.topic.startswith("users/endpoints/")
        and message.type == "DevicePresenceChangedEvent"
        and message.json["uuid"] == uuid
    ]


@pytest.fixture
def lamp(shared: Stack, fresh: Fresh) -> str:
    """A lamp that one endpoint watches."""
    uuid = fresh("lamp")
    params = {"userId": uuid, "userEndpointId": f"{uuid}.e", "keepAliveSeconds": 600, "watch": [f"device:{uuid}"]}
    shared.world.rpc("register_endpoint", params)
    return uuid


def told(shared: Stack, uuid: str, mark: int) -> list[tuple[str, bool]]:
    shared.world.rpc("online_devices")
    return presence(shared.world.since(mark), uuid)


def test_a_client_id_that_is_taken_over_leaves_its_new_holder_online(shared: Stack, lamp: str) -> None:
    topic, mark = f"presence/devices/{lamp}", shared.world.mark()
    first = shared.client(client_id=lamp, will=(topic, "offline"))
    first.publish(topic, "online")
    first.paho.loop_stop()  # it stays connected and says nothing more; nor does it connect again
    second = shared.client(client_id=lamp, will=(topic, "offline"))
    second.publish(topic, "online")
    assert told(shared, lamp, mark) == [("connected", True), ("disconnected", False), ("connected", True)]
    assert lamp in shared.world.rpc("online_devices")


def test_a_will_that_comes_after_the_reconnect_ends_its_own_connection_only(shared: Stack, lamp: str) -> None:
    """A device that makes up a new client id each time: the broker notices the old connection's end much later."""
    topic, mark = f"presence/devices/{lamp}", shared.world.mark()
    witness = shared.client()
    witness.subscribe(topic)
    wills = {name: f'{{"type": "DEVICE_DISCONNECTED", "connectionId": "{name}"}}' for name in ("before", "after")}
    before, after = [shared.client(will=(topic, will)) for will in wills.values()]
    before.publish(topic, "online", connection="before")
    after.publish(topic, "online", connection="after")
    before.vanish()
    witness.expect(lambda m: m.payload.decode() == wills["before"])
    assert told(shared, lamp, mark) == [("connected", True)]


def test_what_died_with_its_broker_ends_with_its_lease_and_stays_gone(leased: Stack) -> None:
    world, mark = leased.world, leased.world.mark()
    topic = "presence/devices/{}"
    for name in ("gone", "living"):
        leased.client(client_id=name, will=(topic.format(name), "offline")).publish(
            topic.format(name), "online", retain=True
        )
    assert world.rpc("online_devices") == ["gone", "living"]
    for client in leased._clients:
        client.paho.loop_stop()
    _wait_saved(leased)
    leased.broker.kill()  # it keeps sessions and retained messages; wills it never keeps
    leased.broker.start()
    world.until(lambda: "online" in leased.bridge.states(mark), 30, "the bridge is back")
    living = leased.client(client_id="living")
    expired = None
    end = time.monotonic() + 30
    while expired is None and time.monotonic() < end:
        living.publish(topic.format("living"), "online", retain=True)
        time.sleep(LEASE_SECONDS / 4)
        expired = next((found for found in presence(world.since(mark), "gone") if not found[1]), None)
    assert expired == ("expired", False)

    # The broker still keeps its `online`, and hands it out at the next new subscription.
    mark = world.mark()
    _lose_session(leased)
    world.until(lambda: "online" in leased.bridge.states(mark), 30, "the bridge is back")
    late = leased.client()
    late.subscribe("presence/devices/+")
    assert late.expect(lambda m: m.topic.endswith("/gone")).payload == b"online"
    living.publish(topic.format("living"), "online")
    assert world.rpc("online_devices") == ["living"]


def _wait_saved(stack: Stack) -> None:
    """Return once the broker has saved all that it has acknowledged by now."""
    file = stack.broker.directory / "mosquitto.db"
    saves: set[int] = set()
    end = time.monotonic() + 30
    while len(saves) < 3:  # one from before, one that may have begun before, and one after it
        assert time.monotonic() < end, "the broker saves nothing"
        if file.exists():
            saves.add(file.stat().st_mtime_ns)
        stack.world.publish("nobody/listens")  # it saves only where something changed
        time.sleep(0.05)


def _lose_session(stack: Stack) -> None:
    """Somebody with the bridge's client id starts anew."""
    Client(stack.broker.port, client_id=_client_id(stack)).close()


def _client_id(stack: Stack) -> str:
    with Redis.from_url(stack.redis.url, decode_responses=True) as redis:
        client_id = redis.hget("eb:facts", "client_id")
    assert isinstance(client_id, str)
    return client_id


def test_who_flaps_is_told_of_once(leased: Stack) -> None:
    world, mark = leased.world, leased.world.mark()
    for _ in range(10):
        for word in ("online", "offline"):
            world.publish("presence/devices/flap", word)
    world.rpc("online_devices")
    assert presence(world.since(mark), "flap")[-1] == ("flapping", True)
    assert len(presence(world.since(mark), "flap")) == 5


def test_subscriptions_that_a_thief_left_in_the_bridges_session_do_no_harm(leased: Stack) -> None:
    world, mark = leased.world, leased.world.mark()
    thief = Client(leased.broker.port, client_id=_client_id(leased), durable=True)
    thief.subscribe("#")
    thief.close()
    world.until(lambda: "online" in leased.bridge.states(mark), 30, "the bridge is back")
    for name in ("one", "two", "three"):
        world.publish(f"presence/devices/{name}", "online")
    assert {"one", "two", "three"} <= set(world.rpc("online_devices"))
    world.rpc("online_devices")
    reports = [message.json["topic"] for message in world.since(mark, "bridge/") if message.topic.endswith("rejected")]
    assert not [topic for topic in reports if topic.startswith(("users/endpoints/", "bridge/", "replies/"))]
    assert leased.bridge.log.count("somebody knows its MQTT client id") == 1
