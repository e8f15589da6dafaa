"""Where settings come from: secrets folder before environment before configuration file before default.

``mqtt.password`` is a file of that name in the secrets folder, ``ENDPOINT_BRIDGE_MQTT__PASSWORD`` in the environment
and ``password`` under ``[mqtt]`` in the file. Whatever is wrong in any of them is reported at once.
"""

import difflib
import json
import re
import ssl
import textwrap
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from bridge.domain.masks import Masks
from bridge.domain.registry_topics import RegistryTopics
from bridge.domain.routes import RouteEntry, audit_masks, routes
from bridge.domain.routing import Router
from bridge.domain.rules import Rules
from bridge.domain.topics import EndpointTopics, InputTopics
from bridge.domain.values import KINDS, Kind
from bridge.errors import ConfigError
from bridge.settings import ONLY_IN_SECRETS, SECRET, Mqtt, Redis, Route, Settings
from bridge.tls import client_context

__all__ = [
    "Rooms",
    "Settings",
    "Source",
    "documented_defaults",
    "effective",
    "load_settings",
    "load_with_sources",
    "rooms",
]

ENVIRONMENT_PREFIX = "ENDPOINT_BRIDGE_"
CONFIG_VARIABLE = "ENDPOINT_BRIDGE_CONFIG"
SECRETS_VARIABLE = "ENDPOINT_BRIDGE_SECRETS"
DEFAULT_FILE = Path("config/bridge.toml")
HIDDEN = "(hidden)"
_BEFORE_AT = re.compile(r"\S+(?=@)")  # where an address stands in a wrong place, with user and password

_FORMS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: 'a list, like ["one", "two"]',
    SecretStr: "text",
}


MakeContext = Callable[[], ssl.SSLContext]


class Source(NamedTuple):
    """Where a value comes from: the kind of source, and its file or variable."""

    kind: Literal["default", "file", "environment", "secrets"]
    place: str


class Rooms(NamedTuple):
    """What the configuration alone decides; ``..._tls`` makes a connection's TLS context, None: no TLS."""

    inputs: InputTopics
    endpoint_topics: EndpointTopics
    router: Router
    audit_masks: Mapping[str, Masks]
    rules: Rules
    registry_topics: RegistryTopics | None
    broker_tls: MakeContext | None
    redis_tls: MakeContext | None


class _Given(NamedTuple):
    key: str
    value: Any
    source: Source


def load_settings(config: Path | None, secrets: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read and check all settings.

    Args:
        config: configuration file; None: ``ENDPOINT_BRIDGE_CONFIG``, else ``config/bridge.toml`` where it exists.
        secrets: folder with one file per secret; None: ``ENDPOINT_BRIDGE_SECRETS``, else there is none.
        environ: the environment.

    Raises:
        ConfigError: with a line for each problem: dotted key, reason, remedy and source.
    """
    return load_with_sources(config, secrets, environ)[0]


def load_with_sources(
    config: Path | None, secrets: Path | None, environ: Mapping[str, str]
) -> tuple[Settings, dict[str, Source]]:
    """Like `load_settings`, and for every dotted key where its value comes from."""
    known = dict(_leaves())
    problems: list[str] = []
    given: dict[str, _Given] = {}
    for entry in _everything_given(config, secrets, environ, problems):
        if entry.key in known:
            if known[entry.key].json_schema_extra == ONLY_IN_SECRETS and entry.source.kind != "secrets" and entry.value:
                problems.append(
                    f"{entry.key}: is taken from the secrets folder only; move it to a file of that name there "
                    f"({entry.source.place})"
                )
                continue
            given[entry.key] = entry
        else:
            problems.append(f"{entry.key}: unknown setting; {_advice(entry.key, known)} ({entry.source.place})")
    tree: dict[str, Any] = {}
    for entry in given.values():
        section, _, name = entry.key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = entry.value
    settings = None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        problems += [_explained(detail, given, known) for detail in error.errors(include_url=False)]
    if problems or settings is None:
        raise ConfigError("\n".join(["the configuration cannot be used:", *(f"  {line}" for line in problems)]))
    return settings, {key: given[key].source if key in given else Source("default", "default") for key in known}


def rooms(settings: Settings) -> Rooms:
    """Build what the configuration alone decides, so that its faults show before anything is opened.

    Raises:
        ConfigError: settings that are right each by itself and wrong together, or name what the bridge does not know.
    """
    topics = settings.topics
    rules = _rules(settings)
    inputs = InputTopics(topics.model_dump(), settings.prefix, settings.default_organization)
    endpoint_topics = EndpointTopics(topics.endpoint, topics.replies, topics.client_replies, settings.prefix)
    table = routes(map(_route_entry, settings.routes), rules.reminder_event)
    registry_topics = None
    if settings.registry_topics:
        templates: dict[Kind, str] = {kind: getattr(topics, f"registry_{kind}") for kind in KINDS}
        registry_topics = RegistryTopics(templates, settings.prefix, settings.default_organization)
    router = Router(table, endpoint_topics, rules.reminder_event)
    mqtt, redis = settings.mqtt, settings.redis
    broker_tls = _tls("mqtt", mqtt) if mqtt.tls else None
    redis_tls = _tls("redis", redis) if redis.url.startswith("rediss:") else None
    return Rooms(
        inputs,
        endpoint_topics,
        router,
        audit_masks(table, rules.reminder_event),
        rules,
        registry_topics,
        broker_tls,
        redis_tls,
    )


def _tls(section: str, files: Mqtt | Redis) -> MakeContext:
    make = partial(client_context, section, files.ca_file, files.certificate_file, files.key_file)
    make()  # what is wrong with the files shows now
    return make


def _route_entry(route: Route) -> RouteEntry:
    audience = None if route.audience is None else tuple(route.audience)
    return RouteEntry(
        route.event, audience, route.qos, route.expiry_seconds, route.retain, tuple(route.masks), route.deliver_masked
    )


def _rules(settings: Settings) -> Rules:
    """Return the numbers that the rules need, in milliseconds."""
    presence, sessions, endpoints, rooms = settings.presence, settings.sessions, settings.endpoints, settings.rooms
    return Rules(
        organization_in_topic="{organization}" in settings.prefix,
        from_endpoints=presence.from_endpoints,
        lease_ms=round(presence.lease_seconds * 1000),
        flap_limit=presence.flap_limit,
        flap_ms=round(presence.flap_seconds * 1000),
        maximum_connections=presence.maximum_connections,
        session_ms=round(sessions.session_hours * 3_600_000),
        tombstone_ms=round(sessions.tombstone_hours * 3_600_000),
        maximum_members=sessions.maximum_members,
        party_lease_ms=round(rooms.lease_seconds * 1000),
        participant_ttl_ms=rooms.participant_ttl_seconds * 1000,
        room_ttl_ms=rooms.room_ttl_seconds * 1000,
        maximum_parties=rooms.maximum_parties,
        maximum_parties_per_subject=rooms.maximum_parties_per_subject,
        grace_ms=round(endpoints.grace_seconds * 1000),
        minimum_keep_alive_seconds=endpoints.minimum_keep_alive_seconds,
        maximum_keep_alive_seconds=endpoints.maximum_keep_alive_seconds,
        maximum_per_subject=endpoints.maximum_per_subject,
        maximum_watch=endpoints.maximum_watch,
        default_watch=tuple(endpoints.default_watch),
        bound_ids=endpoints.id_policy == "bound",
        audit_ms=round(settings.audit.maximum_age_hours * 3_600_000) if settings.audit.enabled else 0,
        event_limit_bytes=settings.sending.event_limit_bytes,
        reminder_event=endpoints.reminder_event,
    )


def effective(settings: Settings, sources: Mapping[str, Source]) -> str:
    """Return the settings in force as TOML: secrets hidden, every value with its source behind it."""
    lines: list[str] = []
    for section, _ in _sections():
        lines += [f"\n[{section}]"] if section else []
        model = getattr(settings, section) if section else settings
        for key, field in _leaves(section):
            name = key.rpartition(".")[2]
            lines.append(f"{name} = {_toml(_shown(getattr(model, name), field))}  # {sources[key].place}")
    return "\n".join(lines) + "\n"


def documented_defaults() -> str:
    """Return the text of ``config/bridge.toml``: every setting with its default and description."""
    lines = [
        "# Every setting of Endpoint Bridge with its default. Printed by `endpoint-bridge show-config --defaults`.",
        "#",
        "# A file of the secrets folder (mqtt.password) wins over the environment (ENDPOINT_BRIDGE_MQTT__PASSWORD),",
        "# that over this file, this file over the default. `endpoint-bridge check-config` names what is wrong.",
    ]
    for section, description in _sections():
        lines += ["", "", f"# {description}", f"[{section}]"] if section else []
        for key, field in _leaves(section):
            lines += ["", *textwrap.wrap(str(field.description), 112, initial_indent="# ", subsequent_indent="# ")]
            lines.append(f"{key.rpartition('.')[2]} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def _sections() -> Iterator[tuple[str, str]]:
    """The empty name for the top level, then each section with its one-line description."""
    yield "", ""
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield name, str(type(field.default).__doc__)


def _leaves(only: str | None = None) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of every setting, of all sections or of one."""
    for name, field in Settings.model_fields.items():
        if not isinstance(field.default, BaseModel):
            if not only:
                yield name, field
        elif only in (None, name):
            for inner, inner_field in type(field.default).model_fields.items():
                yield f"{name}.{inner}", inner_field


def _everything_given(
    config: Path | None, secrets: Path | None, environ: Mapping[str, str], problems: list[str]
) -> Iterator[_Given]:
    """What the file, the environment and the secrets folder say, the winner last."""
    if config is None and environ.get(CONFIG_VARIABLE):
        config = Path(environ[CONFIG_VARIABLE])
    if config is None and DEFAULT_FILE.exists():
        config = DEFAULT_FILE
    if config is not None:
        yield from _given_by_file(config, problems)
    for variable, text in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in (CONFIG_VARIABLE, SECRETS_VARIABLE):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            yield from _given_as_text(key, text, Source("environment", f"environment {variable}"), problems)
    if secrets is None and environ.get(SECRETS_VARIABLE):
        secrets = Path(environ[SECRETS_VARIABLE])
    if secrets is not None:
        yield from _given_by_secrets(secrets, problems)


def _given_by_file(path: Path, problems: list[str]) -> Iterator[_Given]:
    source = Source("file", str(path))
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{path}: cannot be read ({error.strerror}); name a configuration file that exists")
        return
    except ValueError as error:
        problems.append(f"{path}: is not TOML: {error}")
        return
    sections = dict(_sections())
    for name, value in tree.items():
        if name not in sections:
            yield _Given(name, value, source)
        elif isinstance(value, dict):
            yield from (_Given(f"{name}.{inner}", inner_value, source) for inner, inner_value in value.items())
        else:
            problems.append(f"{name}: is a section, not a value; write [{name}] above its settings ({path})")


def _given_by_secrets(folder: Path, problems: list[str]) -> Iterator[_Given]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        problems.append(f"{folder}: cannot be read ({error.strerror}); name a folder of secrets that exists")
        return
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, ValueError):
            problems.append(f"{path.name}: cannot be read as text; make it a readable file ({path})")
            continue
        yield from _given_as_text(path.name, text, Source("secrets", f"secrets {path}"), problems)


def _given_as_text(key: str, text: str, source: Source, problems: list[str]) -> Iterator[_Given]:
    """A value from a source that knows only text: lists are written as JSON."""
    field = dict(_leaves()).get(key)
    if field is None or get_origin(field.annotation) is not list:
        yield _Given(key, text, source)
        return
    try:
        yield _Given(key, json.loads(text), source)
    except ValueError:
        problems.append(f'{key}: is not a JSON list; write it like ["one", "two"] ({source.place})')


def _advice(key: str, known: Mapping[str, FieldInfo]) -> str:
    same_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or same_name
    return f"did you mean {close[0]}?" if close else "`endpoint-bridge show-config --defaults` lists all"


def _explained(detail: Mapping[str, Any], given: Mapping[str, _Given], known: Mapping[str, FieldInfo]) -> str:
    """One line for one problem that pydantic found: dotted key, reason, remedy, source; never a secret's value."""
    location = detail["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    setting = next((name for name in known if key == name or key.startswith((f"{name}[", f"{name}."))), "")
    field = known.get(setting)
    if setting == "routes" and len(location) > 2:
        field = Route.model_fields.get(str(location[2]))
    places = sorted(
        {
            entry.source.place
            for name, entry in given.items()
            if name == setting or (not setting and name.startswith(f"{key}."))
        }
    )
    value = detail["input"]
    if isinstance(value, str):
        value = _BEFORE_AT.sub(HIDDEN, value)
    shown = "" if _is_secret(field) or not isinstance(value, str | int | float) else f"{_toml(value)[:80]} "
    match detail["type"]:
        case "value_error":
            reason = f"{shown}{detail['ctx']['error']}"
        case "missing":
            reason = "is missing; add it"
        case "extra_forbidden":
            reason = f"unknown setting; known are {', '.join(Route.model_fields)}"
        case "literal_error":
            reason = f"{shown}is not allowed; use {detail['ctx']['expected']}"
        case _:
            reason = f"{shown or 'this value '}is not allowed; use {_allowed(field)}"
    return f"{key}: {reason}" + (f" ({', '.join(places)})" if places else "")


def _allowed(field: FieldInfo | None) -> str:
    """What a setting may be, in words: its form and its range."""
    if field is None:
        return "a table of settings"
    annotation = field.annotation
    form = _FORMS.get(get_origin(annotation) or annotation, "")  # type: ignore[arg-type]
    if get_origin(annotation) is Literal:
        form = " or ".join(repr(choice) for choice in get_args(annotation))
    bounds = {"ge": "from", "gt": "above", "le": "to", "min_length": "of a length of at least", "pattern": "matching"}
    ranges = [
        f"{word} {value}"
        for rule in field.metadata
        for name, word in bounds.items()
        if (value := getattr(rule, name, None)) is not None
    ]
    return " ".join([form, *ranges])


def _is_secret(field: FieldInfo | None) -> bool:
    return field is not None and (field.annotation is SecretStr or field.json_schema_extra == SECRET)


def _shown(value: Any, field: FieldInfo) -> Any:
    """A value for human eyes: of a secret only whether there is one, of an address all but its password."""
    if not _is_secret(field):
        return value
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if "://" in text:
        password = urlsplit(text).password
        text = re.sub(r"(?<=[?&]password=)[^&]*", HIDDEN, text)
        return text.replace(f":{password}@", f":{HIDDEN}@", 1) if password else text
    return HIDDEN if text else ""


def _toml(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case SecretStr():
            return json.dumps(value.get_secret_value())
        case list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case BaseModel():
            pairs = value.model_dump(exclude_none=True).items()
            return f"{{ {', '.join(f'{name} = {_toml(item)}' for name, item in pairs)} }}"
        case _:
            return repr(value)
