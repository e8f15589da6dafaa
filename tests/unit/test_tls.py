"""The TLS files of a section: which are taken, and what is said of those that are not."""

import ssl
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.tls import client_context
from tests.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("bridge")


def refused(ca: object = "", certificate: object = "", key: object = "") -> str:
    with pytest.raises(ConfigError) as caught:
        client_context("mqtt", str(ca), str(certificate), str(key))
    return str(caught.value)


def test_the_systems_authorities_are_trusted_by_default_and_names_are_checked() -> None:
    context = client_context("mqtt", "", "", "")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_only_the_given_authority_is_trusted(authority: Authority) -> None:
    (known,) = client_context("mqtt", str(authority.file), "", "").get_ca_certs()
    assert known["subject"] == ((("commonName", "authority"),),)


def test_a_pair_in_two_files_or_in_one(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    client_context("mqtt", str(authority.file), str(pair.certificate), str(pair.key))
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    client_context("mqtt", "", str(both), "")


@pytest.mark.parametrize("setting", ["ca_file", "certificate_file", "key_file"])
def test_a_file_that_is_not_there_is_named(pair: Pair, setting: str, tmp_path: Path) -> None:
    files = {"ca_file": "", "certificate_file": pair.certificate, "key_file": pair.key, setting: tmp_path / "none.pem"}
    text = refused(*files.values())
    assert (
        text
        == f"mqtt.{setting}: {tmp_path}/none.pem cannot be read (No such file or directory); name a file that exists"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "mqtt.ca_file" in refused(ca=tmp_path)
    assert "Is a directory" in refused(ca=tmp_path)


def test_an_authority_that_is_no_certificate(pair: Pair) -> None:
    assert refused(ca=pair.key) == f"mqtt.ca_file: {pair.key} holds no certificate as PEM; name one that does"


def test_a_key_of_another_certificate(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other")
    text = refused(certificate=pair.certificate, key=other.key)
    assert text.startswith(f"mqtt.key_file: the key in {other.key} does not belong to the certificate in")


def test_a_certificate_without_its_key(pair: Pair) -> None:
    assert refused(certificate=pair.certificate).startswith("mqtt.certificate_file: no certificate in")


def test_a_key_in_the_place_of_a_certificate(pair: Pair) -> None:
    assert "as PEM; name files that hold them" in refused(certificate=pair.key, key=pair.key)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(authority: Authority) -> None:
    hidden = authority.issue("hidden", password=b"sesame")
    text = refused(certificate=hidden.certificate, key=hidden.key)
    assert text == f"mqtt.key_file: the key in {hidden.key} is encrypted; name one that is not"
