"""The way to the broker: a TCP connection to one of its addresses, and in words what is wrong with the way."""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from bridge.adapters.mqtt.settings import SessionSettings

_HEAD_START_SECONDS: Final = 0.25  # RFC 8305 section 5

_CHECK_ADDRESS: Final = "Check mqtt.host and mqtt.port, and that the broker runs."
_OWN_CERTIFICATE: Final = (
    "The broker does not take the certificate of the bridge, or asks for one: set mqtt.certificate_file and "
    "mqtt.key_file to one of an authority that the broker trusts, and that has not expired."
)
_TLS_VERSION: Final = "Let the broker speak TLS 1.2 or later."

# OpenSSL's names for what one side tells the other -> what to do about it.
_TLS_REMEDIES: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _OWN_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _OWN_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OWN_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _OWN_CERTIFICATE,
    "TLSV1_ALERT_ACCESS_DENIED": _OWN_CERTIFICATE,
    "TLSV1_ALERT_PROTOCOL_VERSION": _TLS_VERSION,
    "UNSUPPORTED_PROTOCOL": _TLS_VERSION,
}
_PERHAPS_TLS: Final = "Set mqtt.tls = true where mqtt.port is a TLS listener; else look into the broker's log."
_NOT_TLS: Final = "Check that mqtt.port is a TLS listener of the broker, or set mqtt.tls = false."

# OpenSSL's X509_V_ERR_* -> what to do about it.
_CERTIFICATE_REMEDIES: Final = {
    9: "Check the clocks: the broker's certificate is not valid yet.",
    10: "Renew the broker's certificate.",
    62: "Set mqtt.server_name to a name that stands in the certificate.",
    64: "Set mqtt.server_name to a name that stands in the certificate.",
}
_AUTHORITY: Final = "Set mqtt.ca_file to the certificate of the authority that signed the broker's."


async def connect(protocol: Callable[[], asyncio.Protocol], settings: SessionSettings, *, turn: int) -> None:
    """Connect a protocol to the broker, over TLS where the settings say so.

    Args:
        protocol: makes it.
        settings: where the broker is.
        turn: see `dial`.

    Raises:
        OSError: no address answers, or TLS fails; `explain` says it in words.
        bridge.errors.ConfigError: a TLS file has become unusable.
    """
    context = None if settings.tls is None else settings.tls()
    opened = await dial(settings.host, settings.port, turn=turn)
    try:
        await asyncio.get_running_loop().create_connection(
            protocol,
            sock=opened,
            ssl=context,
            server_hostname=None if context is None else settings.server_name or settings.host,
        )
    except BaseException:
        opened.close()
        raise


def explain(error: Exception, settings: SessionSettings) -> str:
    """Say why there is no connection, and what to do about it.

    Args:
        error: what `connect` raised, or what ended the connection before the broker answered.
        settings: where the broker was looked for.
    """
    match error:
        case TimeoutError():
            why, remedy = "no answer", _CHECK_ADDRESS
        case ssl.SSLCertVerificationError():
            why = f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
            remedy = _CERTIFICATE_REMEDIES.get(error.verify_code, _AUTHORITY)
        case ssl.SSLError():
            why, remedy = f"TLS failed: {error.reason or error}", _TLS_REMEDIES.get(error.reason, _NOT_TLS)
        case ConnectionResetError() | ConnectionAbortedError():
            why, remedy = str(error), _PERHAPS_TLS if settings.tls is None else _NOT_TLS
        case _:
            why, remedy = str(error), _CHECK_ADDRESS
    return f"Cannot connect to the broker at {settings.host}:{settings.port}: {why}. {remedy}"


def exposes_password(settings: SessionSettings, peer: tuple[str, int]) -> bool:
    """Tell whether the password leaves this machine in clear, on a connection to ``peer`` (address, port, ...)."""
    return bool(settings.password) and settings.tls is None and not ipaddress.ip_address(peer[0]).is_loopback


async def dial(host: str, port: int, *, turn: int = 0) -> socket.socket:
    """Connect to the first of the host's addresses that answers; each has a head start before the next (RFC 8305).

    Args:
        host: a name or an address.
        port: TCP port.
        turn: which address comes first, counted round: another one for who found the broker behind the first useless.

    Raises:
        OSError: there is no such name, or no address answers; names each with its error.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    turn %= len(addresses)
    waiting = [*addresses[turn:], *addresses[:turn]]
    attempts: set[asyncio.Task[socket.socket]] = set()
    faults: list[str] = []
    try:
        while waiting or attempts:
            if waiting:
                family, _, _, _, address = waiting.pop(0)
                attempts.add(loop.create_task(_connect(family, address), name=f"dial {address[0]}"))
            done, _ = await asyncio.wait(
                attempts,
                timeout=_HEAD_START_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                attempts.discard(attempt)
                try:
                    return attempt.result()
                except OSError as fault:
                    words = os.strerror(fault.errno) if fault.errno else str(fault)
                    faults.append(f"{attempt.get_name().removeprefix('dial ')}: {words}")
    finally:
        for attempt in attempts:  # those that lost the race
            attempt.cancel()
            attempt.add_done_callback(_hang_up)
    raise OSError(", ".join(faults))


async def _connect(family: int, address: Any) -> socket.socket:
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or small packets wait 40 ms for each other
        await asyncio.get_running_loop().sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _hang_up(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
