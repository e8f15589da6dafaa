"""Every setting of the bridge with its type, default, unit and reason; `bridge.config` reads them.

The descriptions are the documentation: ``config/bridge.toml`` is printed from them and a test compares the two.
"""

import re
import socket
from ipaddress import ip_address
from itertools import combinations, zip_longest
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.config import JsonDict

from bridge.domain.endpoints import check_watch
from bridge.domain.events import EVENT_FORM, is_event_type
from bridge.errors import Refusal

PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
NAME = r"^[A-Za-z0-9._-]{1,64}$"
REDIS_PATHS = {
    "redis": re.compile(r"/?[0-9]*"),
    "rediss": re.compile(r"/?[0-9]*"),
    "unix": re.compile(r"/.*[^/]"),
}
SECRET: JsonDict = {"secret": True}
ONLY_IN_SECRETS: JsonDict = {"secret": True, "only_in_secrets": True}
KEY_SOURCES = ("jwks_url", "jwks_file", "key_file", "secret")

Audience = Literal["self", "endpoint", "others", "watchers", "session", "room", "organization"]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]
Port = Annotated[int, Field(ge=1, le=65535)]
Bytes = Annotated[int, Field(ge=1, le=268_435_455)]


def _event_type(text: str) -> str:
    if not is_event_type(text):
        raise ValueError(f"is not an event type: {EVENT_FORM}")
    return text


def _levels(text: str) -> list[str]:
    """The levels of a topic or template, without the trailing slash of one that names a branch."""
    levels = text.removesuffix("/").split("/")
    if "" in levels:
        raise ValueError("has an empty topic level; write something between the slashes and none in front")
    if any(sign in text for sign in "+#") or any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise ValueError("must not hold + or # or control characters; name the variable level by its placeholder")
    if text.startswith("$"):
        raise ValueError("must not start with $, which is the broker's own; choose another first level")
    for level in levels:
        if ("{" in level or "}" in level) and not PLACEHOLDER.fullmatch(level):
            raise ValueError(f"has {level!r}: a placeholder stands for a whole level; put it between slashes")
    return levels


def meet(one: str, other: str) -> bool:
    """Tell whether a topic may fit both templates; one that ends with a slash is fit by all that lies under it."""
    for level, other_level in zip_longest(one.split("/"), other.split("/")):
        if level is None or other_level is None:
            return False
        if not level or not other_level:
            return True
        if level != other_level and "{" not in level + other_level:
            return False
    return True


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Mqtt(_Section):
    """How the bridge reaches the broker and what it takes from it."""

    host: str = Field("127.0.0.1", description="Host name or address of the MQTT 5 broker.")
    port: Port = Field(1883, description="TCP port of the broker; its TLS listener usually has 8883.")
    username: str = Field("", description="User name at the broker. Empty: anonymous (development only).")
    password: SecretStr = Field(
        SecretStr(""), description="Password at the broker. Better placed in the secrets folder than here."
    )
    tls: bool = Field(
        False, description="Whether to speak TLS, 1.2 or later. Without it the password goes over the network in clear."
    )
    ca_file: str = Field(
        "",
        description="PEM file of the authorities that may sign the broker's certificate. Empty: those of the system.",
    )
    certificate_file: str = Field(
        "",
        description="PEM file of the bridge's own certificate, for a broker that asks for one. Read again for each "
        "connection, like the two others, so that a renewed one needs no restart.",
    )
    key_file: str = Field(
        "", description="PEM file of its private key, not encrypted. Empty: it stands in certificate_file."
    )
    server_name: str = Field(
        "", description="Name that must stand in the broker's certificate. Empty: the host as written above."
    )
    client_id: str = Field(
        "",
        repr=False,
        json_schema_extra=SECRET,
        description="MQTT client id. Must be unguessable: who knows it can take the bridge's durable session over. "
        "Empty: made once and kept in Redis.",
    )
    keep_alive_seconds: int = Field(
        4,
        ge=1,
        le=65535,
        description="Seconds of silence after which the bridge takes the broker for gone (at least 4) and connects "
        "again; the broker waits half as long again for the bridge. More for a slow way: a message takes its time.",
    )
    session_expiry_seconds: int = Field(
        604_800,
        ge=1,
        le=4_294_967_295,
        description="Seconds for which the broker keeps messages while the bridge is away. The default is a week: "
        "longer than any outage that somebody watches.",
    )
    receive_maximum: int = Field(
        1000,
        ge=1,
        le=65535,
        description="QoS 1 messages that the broker may deliver before the first is acknowledged. Bounds the memory "
        "of the bridge and the size of its batches.",
    )
    maximum_packet_bytes: Bytes = Field(
        1_048_576,
        description="Bytes of the largest MQTT packet taken. Well above the limits below, so that a message over "
        "those is seen, counted and reported; one over this is silently dropped by the broker.",
    )
    payload_limit_bytes: Bytes = Field(
        65_536, description="Bytes of the largest payload on all inputs but rpc and status; larger: too_large."
    )
    rpc_payload_limit_bytes: Bytes = Field(
        524_288, description="Bytes of the largest RPC request: send_event carries events up to 256 KiB."
    )
    status_limit_bytes: Bytes = Field(
        16_384, description="Bytes of the largest status document: it is stored and repeated with every event."
    )

    @field_validator("host")
    @classmethod
    def _is_a_host(cls, host: str) -> str:
        if not re.fullmatch(r"[^\s/@]+", host):
            raise ValueError("is not a host name or an address; write port, username and password by themselves")
        return host

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = [name for name in ("ca_file", "certificate_file", "key_file", "server_name") if getattr(self, name)]
        if files and not self.tls:
            raise ValueError(f"{' and '.join(files)} need tls = true; set it, or leave them out")
        if self.key_file and not self.certificate_file:
            raise ValueError("key_file needs certificate_file; name the certificate that the key belongs to")
        return self

    @model_validator(mode="after")
    def _limits_fit_a_packet(self) -> Self:
        if max(self.payload_limit_bytes, self.rpc_payload_limit_bytes) >= self.maximum_packet_bytes:
            raise ValueError(
                "maximum_packet_bytes must be above payload_limit_bytes and rpc_payload_limit_bytes; raise it"
            )
        return self


class Redis(_Section):
    """Where the registry is kept."""

    url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        json_schema_extra=SECRET,
        description="redis://[user:password@]host:port/database, rediss:// for TLS, or unix:///path?db=database. With "
        "a password in it better placed in the secrets folder than here.",
    )
    ca_file: str = Field(
        "",
        description="PEM file of the authorities that may sign the certificate of a rediss:// server, which must hold "
        "the host of the url. Empty: those of the system.",
    )
    certificate_file: str = Field(
        "",
        description="PEM file of the bridge's own certificate, for a server that asks for one. Read again for each "
        "connection, like the two others, so that a renewed one needs no restart.",
    )
    key_file: str = Field(
        "", description="PEM file of its private key, not encrypted. Empty: it stands in certificate_file."
    )
    key_prefix: str = Field(
        "eb",
        pattern=r"^[A-Za-z0-9._-]{1,32}$",
        description="First part of every key, so that others may share the database.",
    )
    timeout_seconds: float = Field(
        5,
        ge=0.1,
        le=300,
        description="Seconds to wait for Redis before it counts as away. A commit takes milliseconds.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_redis_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fits = parts.port != 0 and REDIS_PATHS[parts.scheme].fullmatch(parts.path)
            options = parse_qs(parts.query, keep_blank_values=True)
        except (ValueError, KeyError):
            fits = None
        if not fits:
            raise ValueError("is not a Redis address; write redis://host:6379/0, rediss://... or unix:///path?db=0")
        if not options.keys() <= {"db", "username", "password"} or not "".join(options.get("db", ["0"])).isdigit():
            raise ValueError("has an option that is not known; after ? only db (a number), username and password stand")
        return url

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = [name for name in ("ca_file", "certificate_file", "key_file") if getattr(self, name)]
        if files and not self.url.startswith("rediss:"):
            raise ValueError(
                f"{' and '.join(files)} need a url that begins with rediss://; change it, or leave them out"
            )
        if self.key_file and not self.certificate_file:
            raise ValueError("key_file needs certificate_file; name the certificate that the key belongs to")
        return self


class Topics(_Section):
    """Topic templates, each without the prefix. A placeholder in braces stands for one whole level."""

    user: str = Field("presence/users/{id}", description="In: presence of a user.")
    participant: str = Field("presence/participants/{id}", description="In: presence of a participant.")
    device: str = Field("presence/devices/{id}", description="In: presence of a device.")
    user_status: str = Field("presence/users/{id}/status", description="In: status document of a user.")
    participant_status: str = Field(
        "presence/participants/{id}/status", description="In: status document of a participant."
    )
    device_status: str = Field("presence/devices/{id}/status", description="In: status document of a device.")
    room: str = Field("presence/rooms/{room}", description="In: who is in a room, from services.")
    client_room: str = Field("clients/{user}/rooms/{room}", description="In: the same from a user about itself.")
    session: str = Field("sessions/{session}", description="In: join, leave, stop and reply of a session.")
    media: str = Field(
        "sessions/{session}/participants/{participant}/status",
        description="In: what a participant of a session reports of itself: media, devices, hand, room, roles.",
    )
    client_media: str = Field(
        "clients/{user}/sessions/{session}/status", description="In: the same of a user, by itself; not its roles."
    )
    permissions: str = Field(
        "sessions/{session}/permissions", description="In: mute notifications and commands of a session."
    )
    participant_permissions: str = Field(
        "sessions/{session}/permissions/{participant}",
        description="In: the same, addressed to one participant.",
    )
    keepalive: str = Field("users/endpoints/{endpoint}/keepalive", description="In: keepalive of an endpoint.")
    rpc: str = Field("rpc/{method}", description="In: RPC requests of services.")
    client_rpc: str = Field("clients/{user}/rpc/{method}", description="In: RPC requests of a user about its own.")
    endpoint: str = Field(
        "users/endpoints/{endpoint}",
        description="Out: events to an endpoint. May name {user} too, for brokers whose access rules know user names "
        "only: user/{user}/{endpoint}.",
    )
    registry_user: str = Field("registry/users/{id}", description="Out, retained: presence record of a user.")
    registry_participant: str = Field(
        "registry/participants/{id}", description="Out, retained: presence record of a participant."
    )
    registry_device: str = Field("registry/devices/{id}", description="Out, retained: presence record of a device.")
    state: str = Field("bridge/{name}/state", description="Out, retained: online, and offline as the bridge's will.")
    rejected: str = Field("bridge/{name}/rejected", description="Out: which input was not taken and why.")
    replies: str = Field(
        "replies/",
        description="Response topics of rpc must lie under this branch: the bridge may write everywhere, so a free "
        "choice would let a caller publish in its name. Ends with a slash.",
    )
    client_replies: str = Field(
        "clients/{user}/replies/", description="The same for client_rpc: each user has its own branch."
    )

    @field_validator("*")
    @classmethod
    def _template(cls, text: str, info: Any) -> str:
        default = cls.model_fields[info.field_name].default
        found = PLACEHOLDER.findall("/".join(_levels(text)))
        wanted = PLACEHOLDER.findall(default)
        optional = {"user"} if info.field_name == "endpoint" else set()
        if len(found) != len(set(found)) or set(found) - optional != set(wanted):
            names = " and ".join(f"{{{name}}}" for name in wanted) or "no placeholder"
            raise ValueError(f"must hold {names} once each as whole levels, and no other; the default is {default}")
        if default.endswith("/") != text.endswith("/"):
            raise ValueError(f"must {'' if default.endswith('/') else 'not '}end with a slash")
        return text

    @model_validator(mode="after")
    def _are_told_apart(self) -> Self:
        templates = self.model_dump().items()
        for (one, first), (other, second) in combinations(templates, 2):
            if meet(first, second):
                raise ValueError(f"{one} and {other} match the same topics; make one level of them differ")
        return self


class Presence(_Section):
    """Who counts as online."""

    from_endpoints: bool = Field(False, description="Whether a live endpoint makes its subject online by itself.")
    lease_seconds: float = Field(
        0,
        ge=0,
        le=31_536_000,
        description="Seconds after which a connection that did not publish its presence again is dropped. 0: never, "
        "wills and disconnects end connections. Set it where a will can be lost, with the broker for example.",
    )
    flap_limit: int = Field(
        0,
        ge=0,
        le=100,
        description="Changes between online and offline within flap_seconds above which a subject flaps: that is told "
        "once, and what it is when it has settled. 0: every change is told.",
    )
    flap_seconds: float = Field(
        60,
        ge=1,
        le=86_400,
        description="Seconds within which changes are counted, and without any of them a flapping subject has settled.",
    )
    maximum_connections: int = Field(
        32, ge=1, le=1000, description="Connections of one subject; all stand in its one record."
    )


class Sessions(_Section):
    """Live calls, whose members are busy."""

    session_hours: float = Field(
        12, gt=0, le=8760, description="Hours without traffic after which a session is over, should its stop be lost."
    )
    tombstone_hours: float = Field(
        24, gt=0, le=8760, description="Hours for which a stop is remembered against joins that are older than it."
    )
    maximum_members: int = Field(
        1000, ge=1, le=10_000, description="Members of one session; all stand in its one record."
    )


class Rooms(_Section):
    """Where parties are present: sockets, tabs, phones."""

    lease_seconds: float = Field(
        0,
        ge=0,
        le=31_536_000,
        description="Seconds after which a party departs that said nothing, and whose endpoint did not keep itself "
        "alive. 0: never, its messages and its endpoint end it.",
    )
    participant_ttl_seconds: int = Field(
        300,
        ge=1,
        le=31_536_000,
        description="Seconds after which a participant of /rooms is out that neither refreshed nor said anything, and "
        "whose endpoint did not keep itself alive. It is reminded at two thirds of them.",
    )
    room_ttl_seconds: int = Field(
        4_838_400,
        ge=1,
        le=315_360_000,
        description="Seconds after its creation, or the last joining or departure, at which a room of /rooms ends.",
    )
    api_key: str = Field(
        "",
        max_length=256,
        description="apiKey in the answer to a join of /rooms, for clients that hand it to a media server. No secret.",
    )
    maximum_parties: int = Field(
        1000, ge=1, le=10_000, description="Parties in one room; what one does is told to all others."
    )
    maximum_parties_per_subject: int = Field(
        64, ge=1, le=1000, description="Parties of one subject; its one record names them all."
    )


class Endpoints(_Section):
    """Browser tabs, phones and devices that events are sent to."""

    grace_seconds: float = Field(
        0, ge=0, le=86_400, description="Seconds past keepAliveSeconds before an endpoint is removed."
    )
    minimum_keep_alive_seconds: int = Field(1, ge=1, le=86_400, description="Smallest keepAliveSeconds taken.")
    maximum_keep_alive_seconds: int = Field(86_400, ge=1, le=31_536_000, description="Largest keepAliveSeconds taken.")
    maximum_per_subject: int = Field(
        256, ge=1, le=10_000, description="Endpoints of one subject; all stand in its one record."
    )
    maximum_watch: int = Field(1000, ge=0, le=10_000, description="Names in the watch list of one endpoint.")
    default_watch: list[str] = Field(
        [],
        description='Watch list of an endpoint that gives none: names like "device:lamp", "device:*" or "*". Empty, '
        "so that nobody learns of others without being told to.",
    )
    id_policy: Literal["free", "bound"] = Field(
        "free",
        description="Form of endpoint ids that clients may supply. free: any safe id. bound: <subject id>~<random>, so "
        "that one static access rule of the broker isolates every endpoint.",
    )
    reminder_event: str = Field(
        "UserEndpointKeepAliveReminderEvent",
        description="Type of the keepalive reminder, for clients that know it by another name.",
    )

    @field_validator("reminder_event")
    @classmethod
    def _reminder_event(cls, text: str) -> str:
        return _event_type(text)

    @field_validator("default_watch")
    @classmethod
    def _watch(cls, names: list[str]) -> list[str]:
        try:
            return list(check_watch(names, "default_watch"))
        except Refusal as refusal:
            raise ValueError(refusal.message) from None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.minimum_keep_alive_seconds > self.maximum_keep_alive_seconds:
            raise ValueError("minimum_keep_alive_seconds must not be above maximum_keep_alive_seconds; lower it")
        if len(self.default_watch) > self.maximum_watch:
            raise ValueError("default_watch must not hold more names than maximum_watch; shorten it")
        return self


class Sending(_Section):
    """Events that callers hand over by send_event."""

    event_limit_bytes: Bytes = Field(
        262_144,
        description="Bytes of the largest event taken. Its request has to fit into mqtt.rpc_payload_limit_bytes, too.",
    )


class Auth(_Section):
    """Who may call over HTTP: bearer tokens and what is checked of them."""

    mode: Literal["none", "jwt"] = Field(
        "none",
        description="jwt: every call needs a valid bearer token. none: the claims of a token are taken unchecked, and "
        "no token means a service that may do everything; only while HTTP listens on loopback.",
    )
    algorithms: list[Algorithm] = Field(
        ["RS256", "ES256"],
        min_length=1,
        description="Algorithms that a token may be signed with; it has no say in this. HS256, HS384 and HS512 need "
        "auth.secret and stand with no other.",
    )
    audience: str = Field(
        "",
        description="What aud of a token must be or hold. Empty: not checked; then a token for another service counts.",
    )
    issuer: str = Field("", description="What iss of a token must be. Empty: not checked.")
    leeway_seconds: float = Field(
        30,
        ge=0,
        le=300,
        description="Seconds by which the clocks of issuer and bridge may differ, for exp, nbf and iat.",
    )
    jwks_url: str = Field(
        "",
        description="https address of the issuer's keys (JWKS), http only on loopback. Read at the first token, again "
        "every ten minutes, and when a token names an unknown key; redirects are not followed.",
    )
    jwks_file: str = Field(
        "", description="The same as a file. Replaced, it counts as soon as a token names a new key."
    )
    key_file: str = Field("", description="PEM file of the one public key that signs all tokens.")
    secret: SecretStr = Field(
        SecretStr(""),
        json_schema_extra=ONLY_IN_SECRETS,
        description="Shared secret for HS256 and so on, at least as long as the hash: 32, 48 or 64 bytes. Taken from "
        "the secrets folder only, as auth.secret: who reads it can make tokens.",
    )
    service_role: str = Field(
        "SERVICE", min_length=1, description="Role of services: they act for any user and name the organization."
    )
    ops_role: str = Field("OPS", min_length=1, description="Role of those who may call what is for operations.")
    token_endpoint: bool = Field(
        False,
        description="Whether /security/oauth/token gives tokens to whoever asks, without a look at the password. For "
        "development and tests: only on loopback, with mode none or auth.secret.",
    )

    @field_validator("jwks_url")
    @classmethod
    def _is_safe_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
            fits = parts.port != 0 and host and is_safe and "@" not in parts.netloc
        except ValueError:
            fits = False
        if url and not fits:
            raise ValueError(
                "is not an address that keys may come from; write https://host/path, no user, http on loopback only"
            )
        return url

    @model_validator(mode="after")
    def _has_one_key_source(self) -> Self:
        given = [name for name in KEY_SOURCES if getattr(self, name) and getattr(self, name) != SecretStr("")]
        if self.mode == "none" and given:
            raise ValueError(f'{" and ".join(given)} would not be used with mode = "none"; set mode = "jwt"')
        if self.mode == "jwt" and len(given) != 1:
            raise ValueError(f'mode = "jwt" needs one of {", ".join(KEY_SOURCES)}, and only one; {len(given)} are set')
        symmetric = [name for name in self.algorithms if name.startswith("HS")]
        if symmetric and len(symmetric) != len(self.algorithms):
            raise ValueError(
                f"algorithms must not mix {symmetric[0]} with others: a public key could then pass for a secret; choose"
            )
        if self.mode == "jwt" and bool(symmetric) != (given == ["secret"]):
            raise ValueError("algorithms HS256, HS384, HS512 and secret belong together; set both or neither of them")
        shortest = max((int(name[2:]) // 8 for name in symmetric), default=0)
        if given == ["secret"] and len(self.secret.get_secret_value().encode()) < shortest:
            raise ValueError(f"secret must have at least {shortest} bytes for these algorithms; make a longer one")
        if self.token_endpoint and self.mode == "jwt" and not symmetric:
            raise ValueError('token_endpoint can sign only with secret; set that, or mode = "none", or leave it out')
        return self

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches HTTP is let in."""
        return self.mode == "none" or self.token_endpoint

    def binding_fault(self, host: str) -> str | None:
        """Tell why HTTP must not listen on ``host`` with these settings; None: it may."""
        if is_loopback(host) or not self.is_open:
            return None
        cause = "auth.token_endpoint" if self.mode == "jwt" else 'auth.mode = "none"'
        return f"{cause} lets everybody in, so http.host must be a loopback address like 127.0.0.1; change one of them"


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine only: ``localhost`` or a loopback address."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Http(_Section):
    """The HTTP API, health and metrics, in the bridge's own process."""

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. Beyond loopback set up tokens (auth) and a proxy in front that speaks TLS.",
    )
    port: int = Field(8080, ge=0, le=65535, description="TCP port to listen on. 0: no HTTP.")
    base_path: str = Field(
        "/rtc-api",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Stands before /users/endpoints and /security; empty for none. Health, metrics, rpc and rooms have "
        "none.",
    )
    empty_error_bodies: bool = Field(
        False,
        description="Whether errors have no body, but for those of /rooms: for clients that take any JSON for success.",
    )
    body_limit_bytes: Bytes = Field(
        524_288, description="Bytes of the largest request body: sendEvent carries events up to 256 KiB. Larger: 413."
    )
    timeout_seconds: float = Field(
        10, ge=0.1, le=300, description="Seconds for one request, its body and its answer; longer: 503."
    )
    maximum_concurrent: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Requests in hand at a time; one more: 503 with Retry-After, but for health and metrics.",
    )


class Audit(_Section):
    """What was told to whom, and what came of it: a stream per organization, read by the RPC events."""

    enabled: bool = Field(
        False,
        description="Whether it is kept. Off unless somebody wants it: it holds every event that is sent, but for what "
        "masks hide, and takes Redis' memory: an event's size and about 100 bytes for each.",
    )
    maximum_entries: int = Field(
        100_000, ge=1, le=10_000_000, description="Entries kept of one organization, the newest."
    )
    maximum_age_hours: float = Field(
        24, gt=0, le=8760, description="Hours for which an entry is kept. Older ones go within a minute."
    )


class Route(_Section):
    """To whom one event goes and how, instead of the default."""

    event: str = Field(description=f"Type of the event: {EVENT_FORM}.")
    audience: list[Audience] | None = Field(None, description="Who is told. Left out: as by default. []: nobody.")
    qos: Literal[0, 1] = Field(1, description="1: at least once. 0: at most once.")
    expiry_seconds: int = Field(
        0, ge=0, le=4_294_967_295, description="Seconds after which who was not told yet need not be. 0: never."
    )
    retain: bool = Field(
        False, description="Whether the broker keeps an endpoint's newest such event for later subscribers."
    )
    masks: list[str] = Field([], description="JSONPath expressions that say what of it the audit stream hides.")
    deliver_masked: bool = Field(False, description="Whether the masks hide it from the endpoints, too.")

    @field_validator("event")
    @classmethod
    def _event(cls, text: str) -> str:
        return _event_type(text)


class Log(_Section):
    """What the process writes to standard error."""

    format: Literal["console", "json"] = Field("console", description="console: for eyes. json: one object a line.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level written.")


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "bridge"


class Settings(_Section):
    """All settings of one bridge, checked."""

    name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,64}$",
        description="Name of this bridge in its topics and in Redis. Empty: the host name.",
    )
    default_organization: str = Field(
        "default", pattern=NAME, description="Organization of all MQTT traffic when the prefix names none."
    )
    prefix: str = Field(
        "",
        description='Stands before every topic, in and out, and ends with a slash. "{organization}/" serves many '
        "tenants with one bridge.",
    )
    routes: list[Route] = Field(
        [],
        description="Which event goes to whom and how, where the default does not fit (docs/protocol.md, Routes). As "
        'tables below the sections: [[routes]] event = "DeviceStatusChangedEvent", audience = ["watchers"], qos = 0, '
        "expiry_seconds = 60.",
    )
    registry_topics: bool = Field(
        False,
        description="Whether the presence of each subject stands on a retained topic of its own (topics.registry_user "
        "and so on), for dashboards and for whoever comes later.",
    )
    mqtt: Mqtt = Mqtt()
    redis: Redis = Redis()
    topics: Topics = Topics()
    presence: Presence = Presence()
    sessions: Sessions = Sessions()
    rooms: Rooms = Rooms()
    endpoints: Endpoints = Endpoints()
    sending: Sending = Sending()
    http: Http = Http()
    auth: Auth = Auth()
    audit: Audit = Audit()
    log: Log = Log()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        return name or _host_name()

    @field_validator("prefix")
    @classmethod
    def _prefix(cls, prefix: str) -> str:
        if prefix:
            if not prefix.endswith("/"):
                raise ValueError("must end with a slash")
            found = PLACEHOLDER.findall("/".join(_levels(prefix)))
            if found not in ([], ["organization"]):
                raise ValueError("may hold no placeholder but {organization}, and that once")
        return prefix

    @model_validator(mode="after")
    def _listens_safely(self) -> Self:
        fault = self.auth.binding_fault(self.http.host) if self.http.port else None
        if fault:
            raise ValueError(fault)
        return self
