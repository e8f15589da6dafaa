"""Topic templates, compiled: what matches, whose it is, where answers may go."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.topics import INPUTS, EndpointTopics, InputTopics, Match
from bridge.errors import ConfigError, Refusal
from bridge.settings import Topics

TEMPLATES = Topics().model_dump()


def inputs(prefix: str = "", **changed: str) -> InputTopics:
    return InputTopics({**TEMPLATES, **changed}, prefix, "default")


@pytest.mark.parametrize("prefix", ["", "eb/", "{organization}/", "a/{organization}/b/"])
@pytest.mark.parametrize("source", INPUTS)
def test_every_template_brings_its_ids(source: str, prefix: str) -> None:
    ids = tuple(f"<{placeholder}>" for placeholder in INPUTS[source])
    topic = (prefix + TEMPLATES[source]).replace("{organization}", "acme")
    for placeholder in INPUTS[source]:
        topic = topic.replace(f"{{{placeholder}}}", f"<{placeholder}>")
    organization = "acme" if "{" in prefix else "default"
    assert inputs(prefix).match(topic) == Match(source, organization, ids)


@pytest.mark.parametrize("prefix", ["", "e.b/", "{organization}/"])
def test_its_own_topics_are_known_from_all_others(prefix: str) -> None:
    topics, mine = inputs(prefix), prefix.replace("{organization}", "acme")
    for own in (
        *("users/endpoints/e1", "registry/users/ann", "registry/devices/x", "bridge/b2/state", "bridge/b1/rejected"),
        *("replies/a/b/c", "clients/ann/replies/x"),
    ):
        assert topics.is_own(mine + own)
    for other in ("users/endpoints/e1/keepalive", "presence/users/ann", "replies", "bridge/b1/state/x", "x", "", "/"):
        assert not topics.is_own(mine + other)
    assert not topics.is_own("x/y/users/endpoints/e1")
    assert not topics.is_own("exb/users/endpoints/e1") or prefix == "{organization}/"


def test_filters_are_plain_and_one_per_input() -> None:
    filters = inputs("{organization}/").filters
    assert len(filters) == len(INPUTS)
    assert "+/presence/users/+" in filters
    assert "+/clients/+/rpc/+" in filters


@pytest.mark.parametrize(
    "topic", ["", "presence", "presence/users", "presence/users/a/b", "presence/robots/a", "presence/users/a/status/x"]
)
def test_what_fits_no_template(topic: str) -> None:
    assert inputs().match(topic) is None


def test_an_empty_level_is_an_empty_id_for_the_codec_to_refuse() -> None:
    assert inputs().match("presence/users/") == Match("user", "default", ("",))


@pytest.mark.parametrize("organization", ["", "a b", "$SYS", "x" * 65])
def test_a_level_that_is_no_organization(organization: str) -> None:
    with pytest.raises(Refusal, match="invalid_field"):
        inputs("{organization}/").match(f"{organization}/presence/users/ann")


def test_templates_that_cannot_be_told_apart_are_named() -> None:
    with pytest.raises(ConfigError, match=r"topics\.device"):
        inputs(device="presence/users/{id}")


def test_a_fixed_level_does_not_hide_a_placeholder_beside_it() -> None:
    topics = inputs(session="calls/{session}/events", keepalive="calls/endpoints/{endpoint}/keepalive")
    assert topics.match("calls/endpoints/e1/keepalive") == Match("keepalive", "default", ("e1",))
    assert topics.match("calls/endpoints/events") == Match("session", "default", ("endpoints",))


@given(st.text(alphabet="ab/{}+#", max_size=30))
def test_no_topic_breaks_the_table(topic: str) -> None:
    assert inputs().match(topic) is None or topic.count("/") >= 1


def endpoint_topics(template: str = "users/endpoints/{endpoint}", prefix: str = "") -> EndpointTopics:
    return EndpointTopics(template, "replies/", "clients/{user}/replies/", prefix)


@pytest.mark.parametrize(
    ("template", "prefix", "topic"),
    [
        ("users/endpoints/{endpoint}", "", "users/endpoints/e1"),
        ("users/endpoints/{endpoint}/events", "eb/", "eb/users/endpoints/e1/events"),
        ("user/{user}/{endpoint}", "", "user/ann/e1"),
        ("users/endpoints/{endpoint}", "{organization}/", "acme/users/endpoints/e1"),
        ("user/{user}/{endpoint}", "x/{organization}/", "x/acme/user/ann/e1"),
    ],
)
def test_the_topic_of_an_endpoint(template: str, prefix: str, topic: str) -> None:
    assert endpoint_topics(template, prefix).topic("acme", "ann", "e1") == topic


@pytest.mark.parametrize(
    ("user", "given", "topic"),
    [
        (None, "replies/me", "acme/replies/me"),
        (None, "replies/me/deep", "acme/replies/me/deep"),
        ("ann", "clients/ann/replies/1", "acme/clients/ann/replies/1"),
    ],
)
def test_an_answer_goes_under_the_callers_replies(user: Any, given: str, topic: str) -> None:
    assert endpoint_topics(prefix="{organization}/").reply_topic("acme", user, given) == topic


@pytest.mark.parametrize(
    ("user", "given"),
    [
        (None, ""),
        (None, "replies/"),
        (None, "replies"),
        (None, "users/endpoints/e1"),
        (None, "clients/ann/replies/1"),
        (None, "replies/+"),
        (None, "replies/#"),
        (None, "acme/replies/me"),
        ("ann", "replies/me"),
        ("ann", "clients/bob/replies/1"),
        ("ann", "clients/ann/replies/"),
        ("ann", "clients/ann/replies/a/#"),
    ],
)
def test_an_answer_goes_nowhere_else(user: Any, given: str) -> None:
    with pytest.raises(Refusal, match="not_allowed"):
        endpoint_topics().reply_topic("default", user, given)


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("prefix", ["", "{organization}/", "a/{organization}/b/"])
def test_an_answer_that_would_cut_the_bridge_from_the_broker_is_refused(user: Any, prefix: str) -> None:
    topics = endpoint_topics(prefix=prefix)
    branch = "replies/" if user is None else f"clients/{user}/replies/"
    full = prefix.replace("{organization}", "acme") + branch

    deepest = "x" + "/" * (99 - full.count("/"))
    assert topics.reply_topic("acme", user, branch + deepest).count("/") == 99
    with pytest.raises(Refusal, match=r"not_allowed.*101 levels: use at most 100"):
        topics.reply_topic("acme", user, branch + deepest + "/")

    for character, size in (("x", 1), ("é", 2)):
        room = (1024 - len(full)) // size
        assert topics.reply_topic("acme", user, branch + character * room)
        with pytest.raises(Refusal, match=r"not_allowed.*bytes: use at most 1024"):
            topics.reply_topic("acme", user, branch + character * (room + 1))


@pytest.mark.parametrize("character", ["\x00", "\n", "\x1f", "\x7f", "\x9f", "\ud800", "\uffff", "\U0010ffff"])
def test_an_answer_goes_to_no_topic_that_is_not_text(character: str) -> None:
    with pytest.raises(Refusal, match=r"not_allowed.*control characters"):
        endpoint_topics().reply_topic("default", None, f"replies/{character}")
    assert endpoint_topics().reply_topic("default", None, "replies/👩\u200d🚀")
