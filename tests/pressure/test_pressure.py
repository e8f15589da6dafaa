"""The short form of each scenario: what is checked are counts and order. `scripts/pressure` runs the long ones."""

from collections.abc import Iterator

import pytest

from tests.faults.proxy import Proxy
from tests.integration.stack import Stack
from tests.pressure import scenarios
from tests.pressure.__main__ import pressed

pytestmark = pytest.mark.slow  # not yet seen on a machine that is busy with all the other tests


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Proxy]]:
    with pressed(tmp_path_factory.mktemp("pressure")) as found:
        yield found


@pytest.mark.parametrize("qos", [0, 1])
def test_a_flood_of_rejects_starves_nobody(stand: tuple[Stack, Proxy], qos: int) -> None:
    figures = scenarios.rejects(stand[0], qos=qos, junk=20_000, per_second=50_000)
    assert figures["good"] > 0


def test_who_never_acknowledges_holds_nobody_back(stand: tuple[Stack, Proxy]) -> None:
    scenarios.never_acknowledging(stand[0], events=3_000)


def test_a_way_that_is_cut_under_load_loses_nothing(stand: tuple[Stack, Proxy]) -> None:
    scenarios.way_cut(*stand, inputs=3_000, per_second=500, calls_per_second=100)


def test_a_storm_of_connections(stand: tuple[Stack, Proxy]) -> None:
    scenarios.storm(stand[0], clients=200, rounds=2)


def test_many_retained_messages_at_a_subscription(stand: tuple[Stack, Proxy]) -> None:
    scenarios.retained(stand[0], messages=5_000)


def test_messages_of_the_largest_size(stand: tuple[Stack, Proxy]) -> None:
    scenarios.largest(stand[0])
