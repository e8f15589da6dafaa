"""The numbers and choices of the configuration that the rules depend on, all times in milliseconds."""

import msgspec


class Rules(msgspec.Struct, frozen=True):
    """See ``config/bridge.toml`` for what each setting means and why its default is what it is.

    Attributes:
        audit_ms: how long audit entries are kept; 0: none are made.
        organization_in_topic: the topic prefix names the organization, so an endpoint of another one is unknown there.
    """

    organization_in_topic: bool = False
    from_endpoints: bool = False
    lease_ms: int = 0
    flap_limit: int = 0
    flap_ms: int = 60_000
    maximum_connections: int = 32
    session_ms: int = 12 * 3_600_000
    tombstone_ms: int = 24 * 3_600_000
    maximum_members: int = 1_000
    party_lease_ms: int = 0
    participant_ttl_ms: int = 300_000
    room_ttl_ms: int = 8 * 7 * 86_400_000
    maximum_parties: int = 1_000
    maximum_parties_per_subject: int = 64
    grace_ms: int = 0
    minimum_keep_alive_seconds: int = 1
    maximum_keep_alive_seconds: int = 86_400
    maximum_per_subject: int = 256
    maximum_watch: int = 1_000
    default_watch: tuple[str, ...] = ()
    bound_ids: bool = False
    audit_ms: int = 0
    event_limit_bytes: int = 262_144
    reminder_event: str = "UserEndpointKeepAliveReminderEvent"
