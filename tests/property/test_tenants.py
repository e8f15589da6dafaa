"""Nothing crosses: what a tenant is told does not depend on what any other one does."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.domain.values import Output
from tests.unit.world import REJECTED, Message, World, message

ACME, BLUE = "acme", "blue"
USERS = st.sampled_from(("ann", "bob"))
SESSIONS = st.sampled_from(("s1", "s2"))
# An id that another tenant holds can be felt in one way only: it cannot be registered. So each registers its own;
# it may ask for its own, for the other's, and for one that nobody has.
OWN = st.sampled_from(("mine-1", "mine-2"))
ANY = st.sampled_from(("mine-1", "mine-2", "theirs-1", "theirs-2", "nobody"))
WATCHES = st.sampled_from((None, ["*"], ["user:ann"], ["device:lamp"]))


def topic_of(template: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.tuples(*values).map(lambda ids: template.format(*ids))


def rpc(method: str, **params: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(f"rpc/{method}"), st.fixed_dictionaries(params))


def session_event(event_type: str, field: str) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    body = st.fixed_dictionaries({"type": st.just(event_type), field: st.lists(USERS, max_size=2, unique=True)})
    return st.tuples(topic_of("sessions/{}", SESSIONS), body)


actions = st.one_of(
    st.tuples(topic_of("presence/users/{}", USERS), st.sampled_from(("online", "offline"))),
    st.tuples(st.just("presence/devices/lamp"), st.sampled_from(("online", "offline"))),
    st.tuples(topic_of("presence/users/{}/status", USERS), st.integers(0, 2)),
    session_event("JoinSessionEvent", "sessionUsers"),
    session_event("LeaveSessionEvent", "leavingUsers"),
    st.tuples(topic_of("sessions/{}", SESSIONS), st.just({"type": "StopSessionEvent"})),
    rpc(
        "register_endpoint",
        userId=USERS,
        userEndpointId=OWN,
        keepAliveSeconds=st.sampled_from((5, 60)),
        watch=WATCHES,
    ),
    rpc("unregister_endpoint", userEndpointId=ANY),
    rpc("keepalive_endpoint", userEndpointId=ANY),
    rpc("watch_endpoint", userEndpointId=ANY, watch=WATCHES.filter(bool)),
    rpc("list_endpoints", userId=USERS),
    rpc("online_users"),
    rpc("busy_users"),
    rpc("session_members", session=SESSIONS),
    st.tuples(topic_of("users/endpoints/{}/keepalive", ANY), st.just(b"")),
)
steps = st.lists(st.tuples(st.sampled_from((ACME, BLUE)), actions) | st.integers(1, 8), max_size=40)


def sent(organization: str, topic: str, payload: Any) -> Message:
    """What a tenant publishes, with the endpoints named that it means."""
    other = BLUE if organization == ACME else ACME

    def named(text: str) -> str:
        return text.replace("mine-", f"{organization}-").replace("theirs-", f"{other}-")

    body = payload if isinstance(payload, bytes | str) else named(json.dumps(payload))
    reply = "replies/test" if topic.startswith("rpc/") else None
    return message(f"{organization}/{named(topic)}", body, response_topic=reply)


def told(story: Sequence[Any], *organizations: str) -> list[Output]:
    world = World(prefix="{organization}/", registry_topics=True)
    for step in story:
        if isinstance(step, int):
            world.pass_seconds(step)
        elif step[0] in organizations:
            world.feed(sent(step[0], *step[1]))
    return world.broker.outputs


def heard(outputs: Sequence[Output], organization: str) -> list[Any]:
    """What lies under a tenant's topics, without ids that no two runs share."""
    found = []
    for output in outputs:
        if output.topic.startswith(f"{organization}/"):
            body = json.loads(output.payload or b"null")
            if output.event_id:
                del body["id"]
            found.append((output.topic, body, output.retain))
    return found


@settings(deadline=None)
@given(steps)
def test_a_tenant_is_told_the_same_with_and_without_the_other(story: list[Any]) -> None:
    together = told(story, ACME, BLUE)
    for organization in (ACME, BLUE):
        assert heard(together, organization) == heard(told(story, organization), organization)
    for output in together:
        mine = output.topic.partition("/")[0]
        assert mine in (ACME, BLUE) or output.topic == REJECTED
        if output.event_id:
            assert json.loads(output.payload)["organizationId"] == mine
