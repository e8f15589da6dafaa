"""What the peers in Python share: keys, and the event that they tell."""

import json
import time
import uuid
from datetime import UTC, datetime


def user_of(topic: str) -> str:
    """The user of ``<prefix>presence/users/<user>/status``."""
    return topic.split("/")[-2]


def endpoint_keys(prefix: str, user: str) -> tuple[str, str, str]:
    """KEYS of ``status.lua``: record, endpoints, when each user was last heard of."""
    return f"{prefix}user:{user}", f"{prefix}endpoints:{user}", f"{prefix}heard"


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def status_event(user: str, status: bytes, version: int, at_ms: int) -> str:
    """The event that the bridge would send, but for its guarantees."""
    return json.dumps(
        {
            "type": "UserStatusChangedEvent",
            "id": str(uuid.uuid4()),
            "timestamp": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "organizationId": "default",
            "about": f"user/{user}",
            "version": version,
            "uuid": user,
            "status": json.loads(status),
            "statusTimestamp": at_ms,
        }
    )
