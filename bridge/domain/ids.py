"""Ids and record keys: what is a safe id (DESIGN 4), and how ids become keys of the registry (DESIGN 6)."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import unquote

from bridge.domain.values import KINDS, Kind
from bridge.errors import Refusal

MAXIMUM_ID_LENGTH = 128

_ENDPOINT_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-@")
_ORGANIZATION_ALPHABET = _ENDPOINT_ALPHABET - frozenset("~@")
# A colon divides the parts of a key, braces mark the hash tag, and the percent sign is the escape itself.
_KEY_ESCAPES = str.maketrans({"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"})

WATCHERS_KEY = "watchers"


class Ref(NamedTuple):
    """A subject: its kind and its id. Each kind is its own id space."""

    kind: Kind
    id: str


def is_id(text: str) -> bool:
    """Tell whether ``text`` is a safe id: 1..128 characters, no ``+ # /``, no control characters, no leading ``$``."""
    return 0 < len(text) <= MAXIMUM_ID_LENGTH and _is_safe(text)


@lru_cache(maxsize=16_384)
def _is_safe(text: str) -> bool:
    if text[0] == "$" or "/" in text or "+" in text or "#" in text:
        return False
    if text.isascii():
        return text.isprintable()
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def require_id(text: str, field: str) -> str:
    """Return ``text`` if it is a safe id.

    Raises:
        Refusal: ``empty_id`` or ``invalid_field``, naming ``field``.
    """
    if 0 < len(text) <= MAXIMUM_ID_LENGTH and _is_safe(text):
        return text
    if not text:
        raise Refusal(
            "empty_id", f"{field} is empty: name the subject in the topic and leave the field out, or fill it"
        )
    raise Refusal(
        "invalid_field",
        f"{field} is not a safe id ({len(text)} characters): use 1..128 characters without + # /, "
        "control characters or a leading $",
    )


def is_endpoint_id(text: str) -> bool:
    """Tell whether ``text`` can name an endpoint: 1..128 of ``A-Z a-z 0-9 . _ ~ - @``."""
    return 0 < len(text) <= MAXIMUM_ID_LENGTH and _ENDPOINT_ALPHABET.issuperset(text)


def is_organization(text: str) -> bool:
    """Tell whether ``text`` can name an organization: 1..64 of ``A-Z a-z 0-9 . _ -``."""
    return 0 < len(text) <= 64 and _ORGANIZATION_ALPHABET.issuperset(text)


def new_endpoint_id(subject: str, random: str) -> str:
    """Return the id that the server gives an endpoint: ``<subject>~<random>``.

    ``<random>`` alone where the subject's id does not fit: it holds ``~`` or a forbidden character, or is too long.
    ``random`` is unguessable text of ``A-Z a-z 0-9 - _`` made by the caller.
    """
    bound = f"{subject}~{random}"
    return bound if "~" not in subject and is_endpoint_id(bound) else random


def named_owner(endpoint: str) -> str | None:
    """Return the subject that an endpoint id names, ``ann`` of ``ann~tab``; None where it names none (DESIGN 5)."""
    owner, tilde, rest = endpoint.partition("~")
    return owner if owner and tilde and "~" not in rest else None


# One event asks for its subject's key half a dozen times on its way.
@lru_cache(maxsize=16_384)
def subject_key(kind: Kind, subject: str) -> str:
    """Return the record key of a subject, ``user:ann``."""
    return f"{kind}:{subject.translate(_KEY_ESCAPES)}"


@lru_cache(maxsize=16_384)
def _escaped(text: str) -> str:
    return text.translate(_KEY_ESCAPES)


@lru_cache(maxsize=16_384)
def named_key(endpoint: str) -> str | None:
    """Return the record key of the user whom an endpoint id names; None where it names none."""
    named = named_owner(endpoint)
    return None if named is None else subject_key("user", named)


def session_key(session: str) -> str:
    """Return the record key of a session, ``session:s1``."""
    return "session:" + session.translate(_KEY_ESCAPES)


def permissions_key(session: str) -> str:
    """Return the key of what a session's participants have in common of their permissions, ``permissions:s1``."""
    return "permissions:" + session.translate(_KEY_ESCAPES)


def sent_key(key: str) -> str:
    """Return the key of what is kept of a send; ``key`` is a hash."""
    return "sent:" + key


def part_key(noun: str, whole: str, part: str) -> str:
    """Return the key of a part of something: of a participant in a session, ``media:s1:ann``, a party in a room."""
    return f"{noun}:{_escaped(whole)}:{_escaped(part)}"


def parse_part_key(key: str) -> tuple[str, str]:
    """Return the whole and the part that `part_key` named: ``media:s1:ann`` -> ``("s1", "ann")``."""
    _, whole, part = key.split(":")
    return unquote(whole), unquote(part)


def views_key(session: str) -> str:
    """Return the key of what a session's participants see of each other, ``views:s1``."""
    return "views:" + session.translate(_KEY_ESCAPES)


def room_key(room: str) -> str:
    """Return the record key of a room, ``room:r1``."""
    return "room:" + room.translate(_KEY_ESCAPES)


def party_key(room: str, party: str) -> str:
    """Return the record key of one party in a room, ``party:r1:tab1``."""
    return part_key("party", room, party)


def party_keys(room: str, parties: Iterable[str]) -> list[str]:
    """Return the record keys of parties in a room, in order; see `party_key`."""
    start = f"party:{_escaped(room)}:"
    return [start + _escaped(party) for party in parties]


def parties_index(room: str) -> str:
    """Return the index of a room's parties, ``parties:r1``; its members are `bridge.domain.seats.Seat` as text."""
    return "parties:" + room.translate(_KEY_ESCAPES)


def sender_key(kind: Kind | Literal["phone"], sender: str) -> str:
    """Return what a party's user is known by: its record's key, and ``phone:CA1`` for a phone, which has no record."""
    return f"phone:{sender.translate(_KEY_ESCAPES)}" if kind == "phone" else subject_key(kind, sender)


def parse_key(key: str) -> tuple[str, str]:
    """Return the noun and the id of a record key: ``user:ann`` -> ``("user", "ann")``."""
    noun, _, rest = key.partition(":")
    return noun, unquote(rest)


@lru_cache(maxsize=16_384)
def parse_subject_key(key: str) -> Ref:
    """Return the subject of a record key; the key must name one."""
    noun, subject = parse_key(key)
    for kind in KINDS:
        if noun == kind:
            return Ref(kind, subject)
    raise ValueError(f"not a subject's key: {key}")
