"""Endpoints over real MQTT: registered, kept alive, reminded, expired, watched."""

import time
from collections.abc import Callable
from datetime import datetime

from tests.integration.stack import Client, Stack

Fresh = Callable[[str], str]
LATE_SECONDS = 5.0  # how late a busy machine may be before a test fails; the figures asked for are below


def register(client: Client, user: str, endpoint: str, seconds: int = 600, **more: object) -> str:
    answer = client.rpc(
        "register_endpoint", {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": seconds, **more}
    )
    assert answer == {"id": endpoint}
    return endpoint


def states(client: Client, user: str) -> dict[str, str]:
    return {view["id"]: view["state"] for view in client.rpc("list_endpoints", {"userId": user})}


def test_a_silent_endpoint_is_reminded_then_sick_then_expired(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    other = register(world, user, fresh("other"))
    mark = world.mark()
    asked = time.monotonic()
    silent = register(world, user, fresh("silent"), 6, serverKeepAliveReminderOn=True)
    answered = time.monotonic()

    reminder = world.expect(
        lambda m: m.endpoint == silent and m.type == "UserEndpointKeepAliveReminderEvent", mark=mark, what="reminder"
    )
    assert reminder.json["keepAliveSeconds"] == 6
    assert reminder.json["userEndpointId"] == silent
    assert states(world, user)[silent] == "HEALTHY"
    sick = world.expect(
        lambda m: m.endpoint == other and m.type == "UserEndpointStateChangedEvent", mark=mark, what="SICK"
    )
    assert (sick.json["state"], sick.json["previous"], sick.json["userEndpointId"]) == ("SICK", "HEALTHY", silent)
    told = [
        world.expect(
            lambda m, where=where: m.endpoint == where and m.type == "UserEndpointExpiredEvent",
            mark=mark,
            what=f"expiry told to {where}",
        )
        for where in (silent, other)
    ]
    assert states(world, user) == {other: "HEALTHY"}
    # The clock began between question and answer; never before the time, late only as far as ticks and load make it.
    early = 0.02  # two clocks of milliseconds, rounded
    for found, due in ((reminder, 4.0), (sick, 5.0), (told[0], 6.0), (told[1], 6.0)):
        assert found.at - asked >= due - early, (found.type, found.at - asked)
        assert found.at - answered <= due + 1.0 + LATE_SECONDS, (found.type, found.at - answered)
    order = [m.type for m in world.since(mark) if m.endpoint in (silent, other)]
    assert order == [
        "UserEndpointRegisteredEvent",
        "UserEndpointKeepAliveReminderEvent",
        "UserEndpointStateChangedEvent",
        "UserEndpointExpiredEvent",
        "UserEndpointExpiredEvent",
    ]
    versions = [m.json["version"] for m in world.since(mark) if m.endpoint == other]
    assert versions == sorted(set(versions))
    expires = datetime.fromisoformat(reminder.json["expiresAt"]) - datetime.fromisoformat(reminder.json["timestamp"])
    assert 0 <= expires.total_seconds() <= 2.0


def test_expiry_is_within_a_second_of_its_deadline(shared: Stack, fresh: Fresh) -> None:
    """The median of several, so that one late tick of a busy machine is no failure."""
    world, user = shared.world, fresh("ann")
    mark = world.mark()
    late: list[float] = []
    registered: dict[str, float] = {}
    for number in range(5):
        endpoint = register(world, user, fresh(f"e{number}"), 2)
        registered[endpoint] = time.monotonic()
    for endpoint, at in registered.items():
        expired = world.expect(
            lambda m, endpoint=endpoint: (
                m.endpoint == endpoint and m.type == "UserEndpointExpiredEvent" and m.json["userEndpointId"] == endpoint
            ),
            mark=mark,
            what=f"expiry of {endpoint}",
        )
        late.append(expired.at - at - 2.0)
    assert sorted(late)[2] <= 1.0, late
    assert min(late) > -0.2, late


def test_keepalives_over_mqtt_keep_it(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    kept = [register(world, user, fresh(f"qos{qos}"), 2, serverKeepAliveReminderOn=True) for qos in (0, 1)]
    control = register(world, user, fresh("control"), 2)
    mark = world.mark()
    end = time.monotonic() + 3.0

    def is_over() -> bool:
        return time.monotonic() > end and any(
            m.type == "UserEndpointExpiredEvent" and m.json["userEndpointId"] == control for m in world.since(mark)
        )

    while not is_over():
        for qos, endpoint in enumerate(kept):
            world.publish(f"users/endpoints/{endpoint}/keepalive", qos=qos)
        time.sleep(0.3)
        assert time.monotonic() < end + LATE_SECONDS, "the control endpoint did not expire"
    assert states(world, user) == dict.fromkeys(kept, "HEALTHY")
    about_kept = [m for m in world.since(mark, "users/endpoints/") if m.json["userEndpointId"] in kept]
    assert not about_kept, "a reminder, although every keepalive came in time"


def test_a_keepalive_of_nobody_is_answered_once_in_ten_seconds(shared: Stack, fresh: Fresh) -> None:
    world, nobody = shared.world, fresh("nobody")
    mark = world.mark()
    for _ in range(5):
        world.publish(f"users/endpoints/{nobody}/keepalive")
    world.publish(f"users/endpoints/{nobody}/keepalive", qos=0)
    world.rpc("online_users")
    [told] = world.since(mark, f"users/endpoints/{nobody}")
    assert told.type == "UserEndpointExpiredEvent"
    assert told.json["userEndpointId"] == nobody
    error = world.refused("keepalive_endpoint", {"userEndpointId": nobody})
    assert error.code == "not_found"
    assert nobody in error.message
    for method in ("unregister_endpoint", "watch_endpoint"):
        params: dict[str, object] = {"userEndpointId": nobody}
        if method == "watch_endpoint":
            params["watch"] = ["*"]
        assert world.refused(method, params).code == "not_found"


def test_keepalive_by_rpc(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    endpoint = register(world, user, fresh("e"))
    world.rpc("keepalive_endpoint", {"userEndpointId": endpoint})
    assert states(world, user) == {endpoint: "HEALTHY"}


def test_an_endpoint_of_another_organization(shared: Stack, fresh: Fresh) -> None:
    """Without a prefix a service may name the organization; the endpoint is then reached by its id alone."""
    world, user, organization = shared.world, fresh("ann"), fresh("acme")
    mark = world.mark()
    # 4 s: a machine so busy that the clock stands for more than a second may not step over the reminder.
    endpoint = register(world, user, fresh("e"), 4, organizationId=organization, serverKeepAliveReminderOn=True)
    assert states(world, user) == {}  # list_endpoints asks for the default organization
    end = time.monotonic() + 4.6
    while time.monotonic() < end:
        world.publish(f"users/endpoints/{endpoint}/keepalive")
        world.rpc("keepalive_endpoint", {"userEndpointId": endpoint})
        time.sleep(0.3)
    reminder = world.expect(lambda m: m.endpoint == endpoint and "Reminder" in m.type, mark=mark, what="reminder")
    expired = world.expect(lambda m: m.endpoint == endpoint and "Expired" in m.type, mark=mark, what="expiry")
    assert reminder.json["organizationId"] == expired.json["organizationId"] == organization
    assert world.refused("keepalive_endpoint", {"userEndpointId": endpoint}).code == "not_found"


def test_an_id_is_unique_over_all_organizations(shared: Stack, fresh: Fresh) -> None:
    world, endpoint = shared.world, fresh("e")
    register(world, fresh("ann"), endpoint)
    for params in ({"userId": fresh("bob")}, {"userId": fresh("ann"), "organizationId": fresh("acme")}):
        error = world.refused("register_endpoint", {"userEndpointId": endpoint, "keepAliveSeconds": 60, **params})
        assert error.code == "conflict"
    assert states(world, fresh("ann")) == {endpoint: "HEALTHY"}
    world.rpc("unregister_endpoint", {"userEndpointId": endpoint, "reason": "moves"})
    register(world, fresh("bob"), endpoint)  # free again at once
    assert states(world, fresh("bob")) == {endpoint: "HEALTHY"}


def test_register_again_renews_and_keeps_the_watch_list(shared: Stack, fresh: Fresh) -> None:
    world, user, lamp = shared.world, fresh("ann"), fresh("lamp")
    other = register(world, user, fresh("other"))
    mark = world.mark()
    endpoint = register(world, user, fresh("e"), 60, watch=[f"device:{lamp}"])
    register(world, user, endpoint, 90)
    views = {view["id"]: view for view in world.rpc("list_endpoints", {"userId": user})}
    assert views[endpoint]["keepAliveSeconds"] == 90
    assert set(views[endpoint]) == {"id", "userId", "organizationId", "keepAliveSeconds", "state", "version"}
    world.publish(f"presence/devices/{lamp}", "online")
    world.rpc("online_devices")
    heard = [(m.endpoint, m.type) for m in world.since(mark) if m.endpoint in (endpoint, other)]
    assert heard == [(other, "UserEndpointRegisteredEvent"), (endpoint, "DevicePresenceChangedEvent")]


def test_unregister_is_told_to_it_and_the_others(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    one, two = register(world, user, fresh("one")), register(world, user, fresh("two"))
    register(world, fresh("bob"), fresh("bobs"))
    mark = world.mark()
    world.rpc("unregister_endpoint", {"userEndpointId": one, "reason": "logged out"})
    world.rpc("online_users")
    heard = world.since(mark, "users/endpoints/")
    assert {m.endpoint for m in heard} == {one, two}
    assert len(heard) == 2
    for message in heard:
        assert message.type == "UserEndpointUnregisteredEvent"
        assert (message.json["reason"], message.json["userEndpointId"]) == ("logged out", one)
    assert states(world, user) == {two: "HEALTHY"}


def test_watch_is_replaced_and_ends_with_the_endpoint(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    lamp, door = fresh("lamp"), fresh("door")
    endpoint = register(world, user, fresh("e"), watch=[f"device:{lamp}"])

    def heard(device: str, payload: str) -> list[str]:
        mark = world.mark()
        world.publish(f"presence/devices/{device}", payload)
        world.rpc("online_devices")
        return [m.json["uuid"] for m in world.since(mark, f"users/endpoints/{endpoint}")]

    assert heard(lamp, "online") == [lamp]
    assert heard(lamp, "online") == []  # nothing changed
    assert heard(door, "online") == []
    world.rpc("watch_endpoint", {"userEndpointId": endpoint, "watch": [f"device:{door}", f"user:{lamp}"]})
    assert heard(lamp, "offline") == []
    assert heard(door, "offline") == [door]
    world.rpc("watch_endpoint", {"userEndpointId": endpoint, "watch": ["device:*"]})
    assert heard(lamp, "online") == [lamp]
    world.rpc("watch_endpoint", {"userEndpointId": endpoint, "watch": ["*", "device:*", f"device:{lamp}"]})
    assert heard(lamp, "offline") == [lamp]  # once, however often it is meant
    world.rpc("unregister_endpoint", {"userEndpointId": endpoint})
    assert heard(lamp, "online") == []


def test_a_server_made_id_names_its_owner(shared: Stack, fresh: Fresh) -> None:
    world, user = shared.world, fresh("ann")
    made = world.rpc("register_endpoint", {"userId": user, "keepAliveSeconds": 60})["id"]
    owner, _, rest = made.partition("~")
    assert owner == user
    assert rest
    assert "~" not in rest
    world.rpc("unregister_endpoint", {"userEndpointId": made})


def test_a_user_may_touch_only_what_is_its_own(shared: Stack, fresh: Fresh) -> None:
    world, ann, bob = shared.world, fresh("ann"), fresh("bob")
    endpoint = register(world, ann, fresh("e"))
    world.subscribe(f"clients/{bob}/replies/#")

    def as_bob(method: str, params: bytes) -> str:
        answer = world.request(f"clients/{bob}/rpc/{method}", params, response_topic=f"clients/{bob}/replies/r")
        code: str = answer["error"]["code"] if "error" in answer else "taken"
        return code

    for method in ("keepalive_endpoint", "unregister_endpoint"):
        assert as_bob(method, b'{"userEndpointId":"%b"}' % endpoint.encode()) == "forbidden"
    assert as_bob("register_endpoint", b'{"userId":"%b","keepAliveSeconds":60}' % ann.encode()) == "forbidden"
    assert as_bob("list_endpoints", b'{"userId":"%b"}' % ann.encode()) == "forbidden"
    assert as_bob("online_users", b"") == "forbidden"
    assert as_bob("register_endpoint", b'{"keepAliveSeconds":60,"organizationId":"acme"}') == "forbidden"
    assert as_bob("register_endpoint", b'{"keepAliveSeconds":60}') == "taken"
    assert len(states(world, bob)) == 1
    assert states(world, ann) == {endpoint: "HEALTHY"}
