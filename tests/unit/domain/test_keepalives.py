"""The short form of a keepalive does what the long one does, or leaves it to it."""

from typing import Any

import msgspec
import pytest

from bridge.domain.changes import commit_of
from bridge.domain.commands import KeepEndpoint
from bridge.domain.endpoints import keep_endpoint
from bridge.domain.keepalives import renew
from bridge.domain.records import Connection, Endpoint, Subject
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.domain.values import Commit, Loaded, Moment
from tests.unit.world import World, message, told, types_of

ID, KEY = "ann~tab", "user:ann"
WELL = Endpoint(60, 1_000, 5)
OTHERS = {
    "connections": {"": Connection(1, 1)},
    "sessions": {"s": 2},
    "status": msgspec.Raw(b'{"ann~tab":{"keep_alive_seconds":60,"renewed_ms":1000,"version":5}}'),
    "watchers": {ID: "user:bob"},
}


def state_of(stored: bytes | None, rules: Rules, resumed_ms: int) -> State:
    moment = Moment(1_700_000_000_000, 9_000, resumed_ms)
    made = State("default", moment, rules, home="default", id_prefix="p", id_suffix="s", timestamp="t", told_ms={})
    made.add(Loaded({KEY: stored}, {}, 0), {ID: None, "free": None})
    return made


def text(subject: Subject) -> bytes:
    return b"1700000000005:1:" + msgspec.json.encode(subject)


def kept(stored: bytes | None, name: str = ID, rules: Rules | None = None, resumed_ms: int = 0) -> Commit | None:
    """What comes of the short form; None where it leaves it to the long one."""
    state = state_of(stored, rules or Rules(), resumed_ms)
    is_done = renew(KeepEndpoint(name), state)
    assert is_done or all(entry.record is entry.loaded for entry in state.entries.values())
    return commit_of(state, "t") if is_done else None


@pytest.mark.parametrize("rules", [Rules(), Rules(grace_ms=5_000), Rules(from_endpoints=True), Rules(lease_ms=9_000)])
@pytest.mark.parametrize("resumed_ms", [0, 8_000])
@pytest.mark.parametrize(
    "endpoint",
    [
        WELL,
        Endpoint(60, 1_000, 5, reminder_on=True),
        Endpoint(60, 1_000, 5, reminder_on=True, reminded_ms=2_000, watch=("device:lamp", "*")),
    ],
)
@pytest.mark.parametrize("others", [{}, {"a": WELL}, {"a": Endpoint(1, 1_000, 5)}])
def test_it_is_the_long_form(rules: Rules, resumed_ms: int, endpoint: Endpoint, others: dict[str, Endpoint]) -> None:
    for fields in ({}, OTHERS):
        more: dict[str, Any] = dict(fields)
        stored = text(Subject(**more, endpoints={**others, ID: endpoint}))
        long = state_of(stored, rules, resumed_ms)
        assert not keep_endpoint(KeepEndpoint(ID), long).emissions
        assert long.keep()
        assert kept(stored, rules=rules, resumed_ms=resumed_ms) == commit_of(long, "t")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (ID, None),
        (ID, b"nonsense"),
        (ID, text(Subject(status=msgspec.Raw(b'{"ann~tab":{}}')))),
        (ID, text(Subject(endpoints={ID: Endpoint(60, 1_000, 5, sick=True)}))),
        ("ann~other", text(Subject(endpoints={ID: WELL}))),
        ("free", text(Subject(endpoints={"free": WELL}))),
    ],
)
def test_all_else_is_left_to_the_long_form(name: str, stored: bytes | None) -> None:
    assert kept(stored, name) is None


def test_an_answer_is_the_long_forms() -> None:
    assert not renew(KeepEndpoint(ID, asked=True), state_of(text(Subject(endpoints={ID: WELL})), Rules(), 0))
    assert not renew(KeepEndpoint("bob~tab"), state_of(None, Rules(), 0))  # what was not loaded is asked for there


def test_in_one_batch_with_what_comes_before_and_after_it() -> None:
    world = World()
    alive, gone = message(f"users/endpoints/{ID}/keepalive", qos=0), message("rpc/unregister_endpoint", [ID])
    born = message("rpc/register_endpoint", {"userId": "ann", "keepAliveSeconds": 10, "userEndpointId": ID})
    assert told(world.feed(born, alive, message("presence/users/ann", "online"), alive))[ID]
    assert world.record(KEY)["endpoints"].keys() == {ID}  # type: ignore[index]  # it is there
    world.pass_seconds(9)
    other = message("rpc/register_endpoint", {"userId": "ann", "keepAliveSeconds": 60, "userEndpointId": "ann~b"})
    refused = message("rpc/register_endpoint", {"userId": "bob", "keepAliveSeconds": 60, "userEndpointId": ID})
    world.feed(refused, alive, other)
    assert world.codes == ["conflict"]
    assert world.pass_seconds(9) == {}
    assert types_of(told(world.feed(alive, gone, message(f"users/endpoints/{ID}/keepalive")))[ID]) == [
        "UserEndpointUnregisteredEvent",
        "UserEndpointExpiredEvent",
    ]
