import re
from pathlib import Path
from typing import Any

import pytest

from scripts.packages import ROOT, USED_BY_NAME, Evidence, Package, faults, gather

HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    return gather(ROOT)


def test_nothing_is_wrong_with_what_is_here(evidence: Evidence) -> None:
    assert faults(evidence) == []


def without_hashes(lock: str, name: str) -> str:
    return re.sub(rf"^({name}==\S+) \\\n(?: +--hash=\S+(?: \\)?\n)+", r"\1\n", lock, flags=re.MULTILINE)


LOCKS = {
    "a hash is missing": (lambda lock: without_hashes(lock, "anyio"), "anyio has no hash"),
    "a hash of another kind": (lambda lock: f"{lock}\nextra==1 --hash=md5:00\n", "is no requirement with one version"),
    "a hash that is cut": (lambda lock: f"{lock}\nextra==1 {HASH[:-1]}\n", "is no requirement with one version"),
    "no version": (lambda lock: f"{lock}\nextra {HASH}\n", "is no requirement with one version"),
    "a range": (lambda lock: f"{lock}\nextra>=1 {HASH}\n", "is no requirement with one version"),
    "an index": (lambda lock: f"--index-url https://packages.example.org/simple\n{lock}", "names a host (://)"),
    "an address": (lambda lock: f"{lock}\nextra @ https://example.org/extra.whl {HASH}\n", "names a host (://)"),
    "a trusted host": (lambda lock: f"--trusted-host packages.example.org\n{lock}", "names a host (example.org)"),
    "a host in a comment": (lambda lock: f"# from packages.example.org\n{lock}", "names a host (example.org)"),
    "a folder": (lambda lock: f"--find-links /opt/wheels\n{lock}", "is no requirement with one version"),
    "a package twice": (lambda lock: f"{lock}\nanyio==1 {HASH}\n", "anyio is pinned twice"),
    "another version": (
        lambda lock: re.sub(r"^anyio==\S+", "anyio==0.1", lock, flags=re.MULTILINE),
        "and 0.1 in the lock",
    ),
    "a version that is not wanted": (
        lambda lock: re.sub(r"^fastapi==\S+", "fastapi==0.1", lock, flags=re.MULTILINE),
        "fastapi is 0.1 in the lock, and pyproject.toml wants ~=0.165",
    ),
    "one too many": (lambda lock: f"{lock}\nextra==1 {HASH}\n", "extra is in the lock and nothing needs it"),
    "one is missing": (
        lambda lock: without_hashes(lock, "mdurl").replace("\nmdurl==", "\n# "),
        "mdurl is needed by markdown-it-py and not in the lock",
    ),
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_doctored_lock_is_refused(evidence: Evidence, what: str) -> None:
    doctor, fault = LOCKS[what]
    lock = doctor(evidence.lock)
    assert lock != evidence.lock
    assert fault in "\n".join(faults(evidence._replace(lock=lock)))


def with_package(evidence: Evidence, name: str, **changes: Any) -> Evidence:
    package = evidence.installed[name]._replace(**changes)
    return evidence._replace(installed={**evidence.installed, name: package})


@pytest.mark.parametrize(
    ("name", "licences", "fault"),
    [
        ("hiredis", [{"GPL-3.0-only"}], "not allowed to run: GPL-3.0-only"),
        ("hiredis", [{"MIT", "GPL-3.0-only"}], "not allowed to run: GPL-3.0-only and MIT"),
        ("hiredis", [], "not allowed to run: none that its metadata name"),
        ("hiredis", [{"MPL-2.0"}], "not allowed to run: MPL-2.0"),
        ("starlette", [{"AGPL-3.0-only"}, {"LicenseRef-Shop"}], "not allowed to run: AGPL-3.0-only or LicenseRef-Shop"),
        ("pytest", [{"GPL-3.0-only"}], "not allowed to test: GPL-3.0-only"),
    ],
)
def test_a_licence_that_is_not_allowed_is_refused(
    evidence: Evidence, name: str, licences: list[set[str]], fault: str
) -> None:
    doctored = with_package(evidence, name, licences=[frozenset(one) for one in licences])
    assert [line for line in faults(doctored) if name in line and fault in line]


@pytest.mark.parametrize(
    ("name", "licences"),
    [("hiredis", [{"GPL-3.0-only"}, {"MIT"}]), ("pytest", [{"MPL-2.0"}]), ("hiredis", [{"MIT", "BSD"}])],
)
def test_one_allowed_alternative_is_enough(evidence: Evidence, name: str, licences: list[set[str]]) -> None:
    assert faults(with_package(evidence, name, licences=[frozenset(one) for one in licences])) == []


def test_what_is_installed_must_be_what_is_locked(evidence: Evidence) -> None:
    assert "hiredis is 8.0 in .venv" in "\n".join(faults(with_package(evidence, "hiredis", version="8.0")))
    more = {**evidence.installed, "extra": Package("1", [frozenset(("MIT",))], [])}
    assert "extra is in .venv and not in the lock" in "\n".join(faults(evidence._replace(installed=more)))
    fewer = {name: package for name, package in evidence.installed.items() if name != "hiredis"}
    assert "in the lock and not in .venv" in "\n".join(faults(evidence._replace(installed=fewer)))


def test_what_is_imported_must_be_declared(evidence: Evidence) -> None:
    def also(folder: str, name: str) -> str:
        imported = {**evidence.imported, folder: evidence.imported[folder] | {name}}
        return "\n".join(faults(evidence._replace(imported=imported)))

    assert "anyio is imported in bridge and not declared: add it to dependencies in" in also("bridge", "anyio")
    assert "paho-mqtt is imported in bridge and not declared" in also("bridge", "paho-mqtt")
    assert "httpx is imported in bridge/demo and not declared: add it to dependencies or demo" in also(
        "bridge/demo", "httpx"
    )
    assert "requests is imported in tests and not declared" in also("tests", "requests")
    assert also("bridge", "cryptography") == ""  # PyJWT[crypto] brings it


def test_what_is_declared_must_be_used_and_documented(evidence: Evidence, tmp_path: Path) -> None:
    project = {**evidence.project, "dependencies": [*evidence.project["dependencies"], "click~=8.5"]}
    found = "\n".join(faults(evidence._replace(project=project)))
    assert "click is declared in pyproject.toml and nothing uses it" in found
    assert "click has no line in docs/dependencies.md" in found
    document = evidence.document.replace("| uvloop |", "| extra |")
    found = "\n".join(faults(evidence._replace(document=document)))
    assert "uvloop has no line in docs/dependencies.md" in found
    assert "extra stands in docs/dependencies.md and is not in the lock" in found
    for file, _ in USED_BY_NAME.values():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("" if file == "scripts/check" else (ROOT / file).read_text())
    assert [line.split()[0] for line in faults(evidence._replace(root=tmp_path))] == ["import-linter", "mypy", "ruff"]
