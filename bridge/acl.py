"""Mosquitto's access rules for the configuration in force: who may publish and read what.

Static rules, none for a single endpoint, so the broker's work does not grow with their number. Mosquitto 2.0 asks them
at publishing and delivery, never at a subscription: whoever subscribes to ``#`` is sent only what is its own.
"""

from collections.abc import Iterator

from bridge.domain.ids import is_organization
from bridge.domain.topics import INPUTS
from bridge.errors import ConfigError
from bridge.settings import PLACEHOLDER, Settings, meet

SERVICE = "service"

_ABOUT_ITSELF = (
    *("user", "user_status", "participant", "participant_status", "device", "device_status"),
    *("client_room", "client_media", "client_rpc"),
)
_FOR_SERVICES = ("registry_user", "registry_participant", "registry_device", "state", "rejected")

_HEADER = (
    "# Who may do what at the broker. Printed by `endpoint-bridge acl`: print it anew after a change of [topics],",
    "# prefix, endpoints.id_policy or mqtt.username, and send Mosquitto a SIGHUP.",
)
_BRIDGE = (
    "# The bridge reads whatever comes in and writes to every endpoint: nobody else may have its password, nor learn",
    "# its client id (mqtt.client_id), which names its session.",
)


def access_rules(settings: Settings, organization: str | None = None) -> str:
    """Return the text of Mosquitto's ``acl_file``.

    Args:
        settings: the configuration in force.
        organization: whose listener it is for, where ``prefix`` holds ``{organization}``; else None.

    Raises:
        ConfigError: no static rule could keep the endpoints apart; says what to choose.
    """
    _require_isolation(settings, organization)
    prefix = settings.prefix.replace("{organization}", organization or "")
    blocks = [_HEADER, _everybody(settings, prefix), _service(settings, prefix)]
    if organization is None:  # a tenant's listener is not the bridge's
        blocks.append([*_BRIDGE, f"user {settings.mqtt.username}", "topic readwrite #"])
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


def _everybody(settings: Settings, prefix: str) -> Iterator[str]:
    topics = settings.topics
    yield "# Everybody about itself: %u is the name at the broker, the id of the user or device; %c is the client id."
    if _names_user(settings):
        yield f"pattern read {prefix}{_own(_branch(settings))}#"
    else:
        yield f"pattern read {prefix}{_bound(topics.endpoint)}"
    if settings.endpoints.id_policy == "bound":
        yield f"pattern write {prefix}{_bound(topics.keepalive)}"
    else:
        yield "# Ids are free: no rule can tell whose keepalive it is, so they go by the RPC keepalive_endpoint."
    for source in _ABOUT_ITSELF:
        yield f"pattern write {prefix}{_any(_own(getattr(topics, source)))}"
    yield f"pattern read {prefix}{_own(topics.client_replies)}#"


def _service(settings: Settings, prefix: str) -> Iterator[str]:
    topics = settings.topics
    yield "# Services speak for everybody, but not past the bridge to an endpoint. Repeat the block for each by name."
    yield f"user {SERVICE}"
    for source, placeholders in INPUTS.items():
        if "user" not in placeholders:
            yield f"topic write {prefix}{_any(getattr(topics, source))}"
    for output in _FOR_SERVICES:
        yield f"topic read {prefix}{_any(getattr(topics, output))}"
    yield f"topic read {prefix}{topics.replies}#"


def _require_isolation(settings: Settings, organization: str | None) -> None:
    for name, template in {"prefix": settings.prefix, **settings.topics.model_dump()}.items():
        if "%u" in template or "%c" in template:
            raise ConfigError(f"{name} holds %u or %c, which stand for names in Mosquitto's rules; choose other words")
    if _names_user(settings):
        _require_own_branch(settings)
    elif settings.endpoints.id_policy == "free":
        raise ConfigError(
            "no access rule can tell whose endpoint it is: endpoints.id_policy is free, and topics.endpoint, "
            f"{settings.topics.endpoint}, names no user before the endpoint; choose endpoints.id_policy = "
            '"bound" (ids of <user>~<client id>), or topics.endpoint = "user/{user}/{endpoint}"'
        )
    if "{organization}" in settings.prefix:
        _require_organization(organization)
    elif organization is not None:
        raise ConfigError("--organization is for a prefix that holds {organization}; leave it out")
    else:
        _require_name(settings.mqtt.username)


def _require_own_branch(settings: Settings) -> None:
    """Refuse what else lies where all is the user's to read."""
    branch = _branch(settings)
    for name, template in settings.topics.model_dump().items():
        if name != "endpoint" and meet(branch, template):
            raise ConfigError(
                f"topics.{name}, {template}, lies in the branch of a user's endpoints, {branch}, which that user may "
                "read; make one level of them differ"
            )


def _require_organization(organization: str | None) -> None:
    if organization is None:
        raise ConfigError(
            "prefix holds {organization}, and no access rule can tell whose user somebody is: give each tenant a "
            "listener with its mount_point (mosquitto/tenants.conf), and rules printed with --organization NAME"
        )
    if not is_organization(organization):
        raise ConfigError("--organization is no organization's name; use 1..64 of A-Z a-z 0-9 . _ -")


def _require_name(username: str) -> None:
    if not username:
        raise ConfigError(
            "mqtt.username is empty, and the rules know the bridge by it; set it (where the bridge has a certificate: "
            "to its common name)"
        )
    if username == SERVICE or username.strip() != username or not username.isprintable():
        raise ConfigError(
            f"mqtt.username cannot be {username!r} in the rules; choose another name, printable, without spaces around "
            f"it, and not {SERVICE}, which is the services'"
        )


def _branch(settings: Settings) -> str:
    """What stands before the level of the endpoint."""
    return settings.topics.endpoint.partition("{endpoint}")[0]


def _names_user(settings: Settings) -> bool:
    return "{user}" in _branch(settings)


def _own(template: str) -> str:
    return template.replace("{id}", "%u").replace("{user}", "%u")


def _bound(template: str) -> str:
    return _own(template.replace("{endpoint}", "%u~%c"))


def _any(template: str) -> str:
    return PLACEHOLDER.sub("+", template)
