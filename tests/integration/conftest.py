"""One stack for all tests that neither restart nor configure it."""

import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from tests.integration.stack import Stack, stack
from tests.servers import free_port


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("shared"), HTTP__PORT=str(free_port())) as found:
        yield found


@pytest.fixture(scope="session")
def _tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Many organizations by prefix, topics that name the user, Valkey, a long grace, and the narrowest window."""
    with stack(
        tmp_path_factory.mktemp("tenants"),
        hears=("+/user/#", "+/bridge/#"),
        flavour="valkey",
        PREFIX="{organization}/",
        TOPICS__ENDPOINT="user/{user}/{endpoint}",
        MQTT__RECEIVE_MAXIMUM="10",
        ENDPOINTS__GRACE_SECONDS="30",
    ) as found:
        yield found


@pytest.fixture
def tenants(_tenants: Stack) -> Stack:
    """That stack with its bridge running, also where the test before failed between kill and start."""
    if not _tenants.bridge.is_running:
        _tenants.bridge.start()
    return _tenants


class Pace:
    """Ten reports are told in a second: holds a test back until its report is surely among them."""

    SHARE = 8

    def __init__(self) -> None:
        self._asked = [time.monotonic()] * self.SHARE

    def wait(self) -> None:
        time.sleep(max(0.0, self._asked.pop(0) + 1.05 - time.monotonic()))
        self._asked.append(time.monotonic())


@pytest.fixture(scope="module")
def pace() -> Pace:
    return Pace()


_numbers = count(1)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Makes ids that no other test has: ``fresh("ann")`` -> ``ann-7``, the same number within one test."""
    number = next(_numbers)
    return lambda name: f"{name}-{number}"
