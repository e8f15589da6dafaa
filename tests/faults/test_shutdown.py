"""SIGTERM where the bridge cannot deliver: it ends within its bound, says so, and the next start finishes."""

from collections.abc import Iterator

import pytest

from tests.integration.stack import Stack, stack
from tests.servers import free_port


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(
        tmp_path_factory.mktemp("shutdown"), durable=True, HTTP__PORT=str(free_port()), REDIS__TIMEOUT_SECONDS="1"
    ) as found:
        yield found


def register(torn: Stack, user: str, endpoint: str) -> None:
    body = {"userId": user, "userEndpointId": endpoint, "keepAliveSeconds": 600}
    answer = torn.web().post("/rtc-api/users/endpoints", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
def test_what_a_frozen_broker_does_not_take_is_left_to_the_next_start(torn: Stack) -> None:
    register(torn, "ann", "ann1")
    mark = torn.world.mark()
    torn.broker.freeze()
    try:
        register(torn, "ann", "ann2")  # committed, and told to ann1: the broker does not say that it took it
        assert torn.bridge.end() == 1
    finally:
        torn.broker.thaw()
    torn.bridge.start()
    again = torn.world.expect(lambda m: m.endpoint == "ann1" and "redelivered" in m.user, mark=mark)
    assert (again.type, again.json["userEndpointId"]) == ("UserEndpointRegisteredEvent", "ann2")
    assert torn.bridge.end() == 0
    torn.bridge.start()


def test_a_frozen_redis_holds_nobody_up(torn: Stack) -> None:
    torn.redis.freeze()
    try:
        torn.world.publish("presence/users/bob", "online")
        assert torn.bridge.end() == 1
    finally:
        torn.redis.thaw()
    torn.bridge.start()
    assert torn.world.rpc("online_users") == ["bob"]
