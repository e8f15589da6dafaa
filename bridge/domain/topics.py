"""Topic templates (DESIGN 4): compiled once into MQTT filters, a table for what comes in, writers for what goes out.

Matching walks one dictionary per topic level, so its cost does not grow with the number of templates.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from bridge.domain.ids import is_organization
from bridge.errors import ConfigError, Refusal

LARGEST_REPLY_LEVELS: Final = 100
"""Of the full response topic. Mosquitto cuts the connection of whoever publishes to more than 200 levels (protocol
error): a caller could cut the bridge's, again and again. Half of that leaves room for brokers that bear less."""

LARGEST_REPLY_BYTES: Final = 1_024
"""Of the full response topic in UTF-8. MQTT takes 65,535, but a topic is repeated in the journal and on the wire."""

# MQTT 5 section 1.5.4: null and surrogates must not be in a string; control characters and non-characters should not,
# and Mosquitto ends the connection of a client that sends them.
_NOT_TEXT: Final = "\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef" + "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
_BAD_TEXT: Final = re.compile(f"[{_NOT_TEXT}]")


def is_text(text: str) -> bool:
    """Tell whether a string may stand in an MQTT packet: no control characters, surrogates or non-characters."""
    return text.isprintable() or not _BAD_TEXT.search(text)  # the pattern also allows joiners, as in emoji, but is slow


# Input -> the placeholders of its template, in the order in which `Match.ids` brings them.
INPUTS: dict[str, tuple[str, ...]] = {
    "user": ("id",),
    "participant": ("id",),
    "device": ("id",),
    "user_status": ("id",),
    "participant_status": ("id",),
    "device_status": ("id",),
    "room": ("room",),
    "client_room": ("user", "room"),
    "session": ("session",),
    "media": ("session", "participant"),
    "client_media": ("user", "session"),
    "permissions": ("session",),
    "participant_permissions": ("session", "participant"),
    "keepalive": ("endpoint",),
    "rpc": ("method",),
    "client_rpc": ("user", "method"),
}

# What the bridge alone publishes. A template that ends with a slash is a branch of topics.
OUTPUTS: Final = (
    *("endpoint", "registry_user", "registry_participant", "registry_device"),
    *("state", "rejected", "replies", "client_replies"),
)


class Match(NamedTuple):
    """What a topic says: which input it is, whose, and the ids it names."""

    source: str
    organization: str
    ids: tuple[str, ...]


class _Leaf(NamedTuple):
    source: str
    levels: tuple[int, ...]
    organization_level: int | None


class _Node:
    __slots__ = ("any", "leaf", "literal")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.leaf: _Leaf | None = None


def _merged(nodes: Sequence[_Node]) -> _Node:
    """Return one node that stands for all of ``nodes``, the first of them first.

    Where a fixed level and a placeholder stand side by side, what follows the placeholder is also put under the fixed
    level, so that matching never has to go back.
    """
    merged = _Node()
    merged.leaf = next((node.leaf for node in nodes if node.leaf is not None), None)
    wild = [node.any for node in nodes if node.any is not None]
    merged.any = _merged(wild) if wild else None
    for level in dict.fromkeys(level for node in nodes for level in node.literal):
        merged.literal[level] = _merged([*(node.literal[level] for node in nodes if level in node.literal), *wild])
    return merged


class InputTopics:
    """The input templates as one table.

    Args:
        templates: input or output -> template without prefix.
        prefix: stands before every topic: empty, or ends with ``/``; may hold ``{organization}``.
        default_organization: whose traffic it is where the prefix names none.

    Raises:
        ConfigError: two templates cannot be told apart.
    """

    def __init__(self, templates: Mapping[str, str], prefix: str, default_organization: str) -> None:
        self.default_organization = default_organization
        self.filters: list[str] = []
        root = _Node()
        for source, placeholders in INPUTS.items():
            levels = (prefix + templates[source]).split("/")
            node = root
            for level in levels:
                if level.startswith("{"):
                    node.any = node.any or _Node()
                    node = node.any
                else:
                    node = node.literal.setdefault(level, _Node())
            if node.leaf is not None:
                raise ConfigError(
                    f"topics.{source}: {templates[source]!r} cannot be told from topics.{node.leaf.source}: "
                    "give them different fixed levels"
                )
            node.leaf = _Leaf(
                source,
                tuple(levels.index("{" + placeholder + "}") for placeholder in placeholders),
                levels.index("{organization}") if "{organization}" in levels else None,
            )
            self.filters.append("/".join("+" if level.startswith("{") else level for level in levels))
        self._root = _merged([root])
        self._own = re.compile("|".join(_form(prefix + templates[output]) for output in OUTPUTS))

    def is_own(self, topic: str) -> bool:
        """Tell whether a topic is one of those that the bridge itself publishes to."""
        return self._own.fullmatch(topic) is not None

    def match(self, topic: str) -> Match | None:
        """Return what the topic says, None where no template fits.

        Raises:
            Refusal: ``invalid_field`` where the organization's level holds no organization.
        """
        levels = topic.split("/")
        node: _Node | None = self._root
        for level in levels:
            if node is None:
                return None
            node = node.literal.get(level) or node.any
        if node is None or node.leaf is None:
            return None
        source, positions, organization_level = node.leaf
        organization = self.default_organization
        if organization_level is not None:
            organization = levels[organization_level]
            if not is_organization(organization):
                raise Refusal("invalid_field", "organization in the topic: use 1..64 of A-Z a-z 0-9 . _ -")
        if len(positions) == 1:
            return Match(source, organization, (levels[positions[0]],))
        return Match(source, organization, tuple(levels[position] for position in positions))


def _form(template: str) -> str:
    """Return a regular expression for the topics of a template."""
    levels = ["[^/]*" if level.startswith("{") else re.escape(level) for level in template.split("/")]
    return "/".join(levels) + (".*" if template.endswith("/") else "")


class EndpointTopics:
    """Writes the topics of endpoints, and checks those of RPC answers.

    Args:
        template: ``users/endpoints/{endpoint}``; may also hold ``{user}``.
        replies: what a service's response topic starts with; ``client_replies`` the same for ``{user}``.
        prefix: see `InputTopics`.
    """

    def __init__(self, template: str, replies: str, client_replies: str, prefix: str) -> None:
        self._prefix = prefix
        self._replies = replies
        self._client_replies = client_replies
        self.names_user = "{user}" in template
        self.topic: Callable[[str, str, str], str] = _writer(prefix + template)
        self._endpoint_level = (prefix + template).split("/").index("{endpoint}")

    def endpoint_of(self, topic: str) -> str:
        """Return the endpoint whose topic, written by `topic`, this is."""
        return topic.split("/")[self._endpoint_level]

    def reply_topic(self, organization: str, user: str | None, response_topic: str) -> str:
        """Return the full topic of an RPC answer; ``user`` None for a service.

        Raises:
            Refusal: ``not_allowed``: outside of the caller's replies, or with wildcards: otherwise a caller could make
                the bridge, which may write everywhere, publish to somebody's endpoint. Also too deep, too long or with
                characters for which the broker would cut the bridge.
        """
        allowed = self._replies if user is None else self._client_replies.replace("{user}", user)
        if len(response_topic) <= len(allowed) or not response_topic.startswith(allowed):
            raise Refusal("not_allowed", f"response topic must lie under {allowed}")
        if "+" in response_topic or "#" in response_topic:
            raise Refusal("not_allowed", "response topic holds a wildcard: name one topic")
        if not is_text(response_topic):
            raise Refusal("not_allowed", "response topic holds control characters: use text")
        topic = self._prefix.replace("{organization}", organization) + response_topic
        levels, size = topic.count("/") + 1, len(topic.encode())
        if levels > LARGEST_REPLY_LEVELS:
            raise Refusal("not_allowed", f"response topic has {levels} levels: use at most {LARGEST_REPLY_LEVELS}")
        if size > LARGEST_REPLY_BYTES:
            raise Refusal("not_allowed", f"response topic has {size} bytes: use at most {LARGEST_REPLY_BYTES}")
        return topic


def _writer(template: str) -> Callable[[str, str, str], str]:
    head, _, tail = template.partition("{endpoint}")
    if "{" not in head + tail:
        return lambda _organization, _user, endpoint: head + endpoint + tail
    return lambda organization, user, endpoint: template.format(organization=organization, user=user, endpoint=endpoint)
