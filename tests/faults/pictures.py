"""Pictures: everything that can be asked of a bridge, or of the model, to be held against each other."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.faults.caller import DEVICES

SILENT = "silent"  # who is called so never keeps anything alive; the model does not know them

_BY_TIME = "peers_disagree"  # the model's clock stands still


def picture(
    call: Callable[[str, Any], Any], users: Sequence[str], sessions: Sequence[str], rooms: Sequence[str]
) -> dict[str, Any]:
    """Ask for everything, and leave out what differs by time."""
    found: dict[str, Any] = {}
    for kind in ("user", "device", "participant"):
        for what in ("online", "busy"):
            ids = call(f"{what}_{kind}s", {})
            found[f"{what} {kind}s"] = [one for one in ids if not one.startswith(SILENT)]
    found["status of devices"] = {
        device: (view["online"], view["busy"], view["status"])
        for device, view in call("status_devices", {}).items()
        if device not in DEVICES and not device.startswith(SILENT)
    }
    for session in sessions:
        members = call("session_members", {"session": session})
        found[f"members of {session}"] = {kind: sorted(ids) for kind, ids in members.items()}
        found[f"permissions in {session}"] = _bare(call("call_permissions", {"session": session}))
        found[f"media in {session}"] = {
            participant: {**view, "anomalies": [code for code in view["anomalies"] if code != _BY_TIME]}
            for participant, view in _bare(call("media_state", {"session": session})).items()
        }
    for room in rooms:
        parties = _bare(call("room_parties", {"room": room}))
        parties["parties"].sort(key=lambda party: party["sessionId"])
        found[f"parties of {room}"] = parties
    for user in users:
        found[f"endpoints of {user}"] = sorted(one["id"] for one in call("list_endpoints", {"userId": user}))
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (kind of fault, what is otherwise than it is expected)."""
    for what, value in expected.items():
        if found[what] != value:
            kind = "false expiries" if what.startswith("endpoints") else "lost"
            if what.startswith(("online", "busy", "members", "parties")):
                kind = "ghosts"
            yield kind, f"{what} is {found[what]}, not {value}"


def _bare(found: Any) -> Any:
    """The same without versions, which come from clocks."""
    if isinstance(found, dict):
        return {name: _bare(value) for name, value in found.items() if name != "version"}
    return [_bare(one) for one in found] if isinstance(found, list) else found
