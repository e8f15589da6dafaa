"""Authorities and certificates made on the spot, for TLS on loopback."""

import ipaddress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class Pair(NamedTuple):
    """A certificate and its private key, each in a PEM file."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; ``file`` is its own.

    Args:
        directory: where all its files go; made where missing.
        name: tells its files and itself from another's.
    """

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(_pem(self._signed(self._name, self._key.public_key(), is_authority=True)))

    def issue(
        self, name: str, *hosts: str, end: datetime = END, password: bytes | None = None, begin: datetime = BEGIN
    ) -> Pair:
        """Make a certificate for a name; ``hosts`` are the DNS names and addresses that it is valid for."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), *hosts, begin=begin, end=end)
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        hidden: KeySerializationEncryption = NoEncryption() if password is None else BestAvailableEncryption(password)
        pair.certificate.write_bytes(_pem(certificate))
        pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
        return pair

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *hosts: str,
        is_authority: bool = False,
        begin: datetime = BEGIN,
        end: datetime = END,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)
