"""Keepalives, of which there are more than of all else: the short form of `bridge.domain.endpoints.keep_endpoint`.

Most of them change nothing but when their endpoint was last heard of: it is well, its id names who holds it, nobody
waits for an answer, and nobody is told. Such a command cannot fail half-way, so nothing is kept to take it back.
"""

import msgspec

from bridge.domain.commands import KeepEndpoint
from bridge.domain.ids import named_key
from bridge.domain.loaded import CorruptRecord
from bridge.domain.records import Endpoint, Subject
from bridge.domain.state import State


def renew(command: KeepEndpoint, state: State) -> bool:
    """Renew an endpoint where that is all there is to do; False, and nothing is done, where it may not be."""
    name = command.endpoint
    key = named_key(name)
    if key is None or command.asked or not state.raw.get(key):
        return False
    try:
        entry = state.entry(key)
    except CorruptRecord:
        return False
    subject = entry.record
    assert isinstance(subject, Subject)
    endpoints = subject.endpoints
    endpoint = endpoints.get(name)
    if endpoint is None or endpoint.sick:
        return False
    kept = Endpoint(
        endpoint.keep_alive_seconds,
        state.moment.clock_ms,
        endpoint.version,
        endpoint.reminder_on,
        watch=endpoint.watch,
    )
    state.save_for_good(entry, msgspec.structs.replace(subject, endpoints={**endpoints, name: kept}))
    return True
