"""TLS as a client: who is trusted, and with which certificate the bridge shows itself."""

import ssl
from pathlib import Path

from bridge.errors import ConfigError


def client_context(section: str, ca_file: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Read the files and make a context for TLS 1.2 or later that checks the server's certificate and its name.

    Args:
        section: of the settings, named in errors: ``mqtt``.
        ca_file: PEM file of the trusted authorities; empty: those of the system.
        certificate_file: PEM file of the own certificate and those that lead to its authority; empty: none is shown.
        key_file: PEM file of its private key; empty: it stands in ``certificate_file``.

    Raises:
        ConfigError: a file cannot be read or holds something else.
    """
    for setting, path in (("ca_file", ca_file), ("certificate_file", certificate_file), ("key_file", key_file)):
        if path:
            _require_readable(f"{section}.{setting}", path)
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ConfigError(f"{section}.ca_file: {ca_file} holds no certificate as PEM; name one that does") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file:
        setting, path = ("key_file", key_file) if key_file else ("certificate_file", certificate_file)

        def refuse_password() -> str:  # else OpenSSL asks on the terminal, and a service waits there for ever
            raise ConfigError(f"{section}.{setting}: the key in {path} is encrypted; name one that is not")

        try:
            context.load_cert_chain(certificate_file, key_file or None, refuse_password)
        except ssl.SSLError as error:
            raise ConfigError(f"{section}.{setting}: {_fault(error, certificate_file, path)}") from None
    return context


def _require_readable(setting: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read ({error.strerror}); name a file that exists") from None


def _fault(error: ssl.SSLError, certificate_file: str, key_file: str) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key_file} does not belong to the certificate in {certificate_file}; name a pair"
    return f"no certificate in {certificate_file}, or no private key in {key_file}, as PEM; name files that hold them"
