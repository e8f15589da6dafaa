"""Who holds an endpoint id: over all organizations, kinds and subjects at most one (DESIGN 5).

Records are the truth; what keeps two of them from holding one id is a claim, a key of its own in the registry, taken
before the commit and released after that of the removal. The commonest endpoints do without: an id that names its
owner, ``ann~tab``, belongs to the user ``ann`` of one organization, the registry's home, unless somebody has claimed
it. That this user and somebody else cannot both get it:

- the user's commit conflicts where a claim stands (`State.leave_unclaimed`), and is applied at once with that look;
- whoever else wants it claims first, and then looks at the user's record, or looks again (`Line`): what was committed
  before the claim shows there, and what was not never will be.

The home is written into the registry once, so neither a change of the policy nor of the default organization between
two starts gives an id a second owner.
"""

from collections.abc import Callable

from bridge.domain.ids import Ref, named_owner, subject_key
from bridge.domain.records import Subject
from bridge.domain.state import CommitFirst, State
from bridge.domain.values import Owner
from bridge.errors import Refusal

OVERTAKE_AFTER_MS = 60_000


def holder(state: State, name: str, read: Callable[[str], Subject]) -> Owner | None:
    """Return who holds an endpoint id; None where nobody does. One of another organization may be a left-over claim's.

    Args:
        state: the unit of work.
        name: the endpoint id.
        read: gives the record of a subject of this organization by its key.
    """
    named = named_owner(name)
    if named is not None and name in read(subject_key("user", named)).endpoints:
        return Owner(state.organization, "user", named, 0)
    claimed = state.owner(name)
    if claimed is not None:
        if claimed.organization != state.organization:
            return claimed
        if name in read(subject_key(claimed.kind, claimed.subject)).endpoints:
            return claimed
    if named is not None and state.organization != state.home:
        at_home = Owner(state.home, "user", named, 0)
        if name in state.owned_subject(at_home).endpoints:
            return at_home
    return None


def is_at_home(state: State, ref: Ref, name: str) -> bool:
    """Tell whether a subject needs no claim for an endpoint id."""
    return state.organization == state.home and ref == ("user", named_owner(name))


def take_id(state: State, ref: Ref, name: str) -> None:
    """Let a subject have an endpoint id that its record does not hold yet.

    Raises:
        Refusal: ``conflict``, somebody else has it, or claimed it within the last minute.
        CommitFirst: it changed hands in this batch; taken together, a conflict would leave it with two owners.
    """
    pending = state.claims.get(name)
    if pending is not None and pending.owner is None:
        raise CommitFirst
    claimed = state.owner(name)
    if claimed is not None and not _is_of(claimed, state, ref):
        recent = claimed.claimed_ms + OVERTAKE_AFTER_MS > state.moment.now_ms
        if recent or name in state.owned_subject(claimed).endpoints:
            raise _taken(name)
    named = named_owner(name)
    if is_at_home(state, ref, name):
        if claimed is None:
            state.leave_unclaimed(name)
            return
    elif named is not None:
        if name in state.owned_subject(Owner(state.home, "user", named, 0)).endpoints:
            raise _taken(name)
        if name in state.unclaimed:
            raise CommitFirst
    state.claim(name, Owner(state.organization, *ref, state.moment.now_ms))


def release_id(state: State, ref: Ref, name: str) -> None:
    """Release the claim of a subject to an endpoint id that its record holds no more."""
    if is_at_home(state, ref, name) and not state.is_owner_known(name):
        return  # but for one that it took over from somebody, there is none
    claimed = state.owner(name)
    if claimed is not None and _is_of(claimed, state, ref):
        state.claim(name, None)


def _is_of(owner: Owner, state: State, ref: Ref) -> bool:
    return (owner.organization, owner.kind, owner.subject) == (state.organization, *ref)


def _taken(name: str) -> Refusal:
    return Refusal("conflict", f"userEndpointId {name} belongs to somebody else: choose another one")
