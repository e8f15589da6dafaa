"""Registry topics: what the registry knows of each subject, retained for whoever subscribes (DESIGN 4).

A topic shows the record as it is when it is written, never as it was: the journal keeps which topics a commit owes, not
what they were to show, so a copy sent after a crash cannot put an old record over a newer one.
"""

from collections.abc import Iterable, Mapping

import msgspec

from bridge.domain.ids import parse_subject_key
from bridge.domain.records import NO_STATUS, Subject
from bridge.domain.rules import Rules
from bridge.domain.state import State
from bridge.domain.subjects import is_online
from bridge.domain.values import Kind, Output

_NULL = msgspec.Raw(b"null")
_encode = msgspec.json.Encoder().encode


class PresenceRecord(msgspec.Struct, frozen=True, rename="camel"):
    """What a registry topic holds; the fields mean what they mean in a presence event.

    ``timestamp`` is when it was written there; ``version`` is the record's then.
    """

    organization_id: str
    about: str
    version: int
    timestamp: str
    uuid: str
    online: bool
    busy: bool
    status: msgspec.Raw


class RegistryTopics:
    """Writes registry topics. Pure: it reads the state and nothing else.

    Args:
        templates: kind -> topic template with ``{id}``.
        prefix: see `bridge.domain.topics.InputTopics`.
        default_organization: whose subjects have topics where the prefix names no organization: ids of others would
            meet there.
    """

    def __init__(self, templates: Mapping[Kind, str], prefix: str, default_organization: str) -> None:
        self._templates = {kind: prefix + template for kind, template in templates.items()}
        self._only = None if "{organization}" in prefix else default_organization

    def are_for(self, organization: str) -> bool:
        """Tell whether an organization's subjects have topics."""
        return self._only is None or organization == self._only

    def changed(self, state: State) -> list[str]:
        """Return the keys of the subjects whose topics no longer show what they should after this batch."""
        if not self.are_for(state.organization):
            return []
        return [
            key
            for key, entry in state.entries.items()
            if entry.record is not entry.loaded
            and isinstance(entry.record, Subject)
            and isinstance(entry.loaded, Subject)
            and _shown(entry.record, state.rules) != _shown(entry.loaded, state.rules)
        ]

    def outputs(self, state: State, keys: Iterable[str], largest_packet_bytes: int) -> list[Output]:
        """Return what these subjects' topics are to show now: the record, or nothing where nothing is known of it.

        Nothing also where the record is too large for the broker: an older one must not stand there for it. A record
        that cannot be read leaves its topic as it is.

        Raises:
            bridge.domain.state.NotLoaded: one of the keys is not loaded.
        """
        outputs: list[Output] = []
        if not self.are_for(state.organization):
            return outputs
        for key in keys:
            if not state.is_readable(key):
                continue
            subject = state.subject_at(key)
            ref = parse_subject_key(key)
            topic = self._templates[ref.kind].format(organization=state.organization, id=ref.id)
            shown = _shown(subject, state.rules)
            output = Output(topic, b"", retain=True)
            if shown is not None:
                online, busy, status = shown
                record = PresenceRecord(
                    state.organization,
                    f"{ref.kind}/{ref.id}",
                    state.version(key),
                    state.timestamp,
                    ref.id,
                    online,
                    busy,
                    _NULL if status is NO_STATUS else status,
                )
                full = Output(topic, _encode(record), retain=True)
                if full.packet_bytes <= largest_packet_bytes:
                    output = full
            outputs.append(output)
        return outputs


def _shown(subject: Subject, rules: Rules) -> tuple[bool, bool, msgspec.Raw] | None:
    """Return what a topic shows of a subject; None where nothing is known of it but who watches it."""
    if subject.connections or subject.sessions or subject.endpoints or subject.status is not NO_STATUS:
        return is_online(subject, rules), bool(subject.sessions), subject.status
    return None
