"""``scripts/audit``: whether the packages are those that the lock names, and may be used. Needs no network."""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions, packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

PERMISSIVE = frozenset(
    ("MIT", "MIT-0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "PSF-2.0", "Unlicense", "0BSD")
)
# Weak copyleft on files of their own, which are used and not changed: for tests and checks only.
TO_TEST = PERMISSIVE | {"MPL-2.0"}
# What older metadata call them.
LICENCE_NAMES = {
    "MIT License": "MIT",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

FROM_VENV = frozenset(("pip", "setuptools"))
"""Every virtual environment begins with these; nothing of the project needs them once it is set up."""

USED_BY_NAME = {
    "pytest-asyncio": ("pyproject.toml", "asyncio_mode"),
    "pytest-timeout": ("pyproject.toml", "timeout ="),
    "pytest-xdist": ("scripts/test", "--dist loadfile"),
    "ruff": ("scripts/check", "ruff check"),
    "mypy": ("scripts/check", "mypy"),
    "import-linter": ("scripts/check", "lint-imports"),
    "schemathesis": ("tests/integration/test_schemathesis.py", '"st"'),
}
"""Direct dependencies that nothing imports: which file uses them, and the words that do."""

_OLDEST_PYTHON = {"python_version": "3.11", "python_full_version": "3.11.2"}  # the lock is made for it
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+]+)((?: +--hash=sha256:[0-9a-f]{64})*)")
_HOST = re.compile(r"://|\b[\w-]+\.(?:com|org|net|io|dev|eu|internal|local)\b|\blocalhost\b|\b\d+\.\d+\.\d+\.\d+:")


class Package(NamedTuple):
    """An installed package.

    Attributes:
        version: as installed.
        licences: alternatives, each of names that hold together; empty where its metadata name none.
        requires: requirements, as its metadata have them.
    """

    version: str
    licences: list[frozenset[str]]
    requires: list[str]


class Evidence(NamedTuple):
    """All that is judged.

    Attributes:
        lock: text of ``requirements.lock``.
        project: ``[project]`` of ``pyproject.toml``.
        document: text of ``docs/dependencies.md``.
        installed: canonical name -> package.
        imported: top folder of the source -> canonical names of the packages that it imports.
        root: where the files of `USED_BY_NAME` lie.
    """

    lock: str
    project: Mapping[str, Any]
    document: str
    installed: Mapping[str, Package]
    imported: Mapping[str, set[str]]
    root: Path


def faults(evidence: Evidence) -> list[str]:
    """Return what is wrong, a line each; empty where nothing is."""
    wrong: list[str] = []
    pins = _pins(evidence.lock, wrong)
    wrong += _differences(pins, evidence.installed)
    wrong += _needs(evidence, pins)
    wrong += _licences(evidence, pins)
    wrong += _declarations(evidence, pins)
    return wrong


def _pins(lock: str, wrong: list[str]) -> dict[str, str]:
    """Return canonical name -> version of each pinned requirement."""
    pins: dict[str, str] = {}
    whole = ""
    for number, line in enumerate(lock.splitlines(), 1):
        where = f"requirements.lock:{number}"
        if found := _HOST.search(line):
            wrong.append(f"{where}: names a host ({found[0]}): packages come from wherever pip is told to look")
        text = line.strip()
        if text.startswith("#"):
            continue
        whole += text.removesuffix("\\")
        if text.endswith("\\") or not whole:
            continue
        pin = _PIN.fullmatch(whole.strip())
        if pin is None:
            wrong.append(f"{where}: is no requirement with one version and SHA-256 hashes: {whole[:80]}")
        else:
            name = canonicalize_name(pin[1])
            if not pin[3]:
                wrong.append(f"{where}: {name} has no hash: renew the lock as its first lines say")
            if name in pins:
                wrong.append(f"{where}: {name} is pinned twice")
            pins[name] = pin[2]
        whole = ""
    return pins


def _differences(pins: Mapping[str, str], installed: Mapping[str, Package]) -> Iterator[str]:
    for name in sorted(pins.keys() | installed.keys() - FROM_VENV):
        if name not in installed:
            yield f"{name} {pins[name]} is in the lock and not in .venv: remove .venv/installed.lock, run scripts/setup"
        elif name not in pins:
            yield f"{name} is in .venv and not in the lock: .venv/bin/pip uninstall {name}"
        elif installed[name].version != pins[name]:
            yield f"{name} is {installed[name].version} in .venv and {pins[name]} in the lock: run scripts/setup anew"


def _direct(project: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the requirements of each part: ``run`` and the extras."""
    return {"run": project["dependencies"], **project["optional-dependencies"]}


def _closure(texts: Iterable[str], evidence: Evidence) -> Iterator[tuple[Requirement, str]]:
    """Yield these requirements and, once each, those that they bring, with the name of who asks for it."""
    waiting = [(Requirement(text), "pyproject.toml") for text in texts]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, asker = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name != evidence.project["name"]:
            yield requirement, asker
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == evidence.project["name"]:
                brought = evidence.project["optional-dependencies"].get(extra, [])
            else:
                brought = evidence.installed[name].requires if name in evidence.installed else []
            waiting += [
                (inner, name)
                for inner in map(Requirement, brought)
                if inner.marker is None or _holds(inner.marker, extra)
            ]


def _holds(marker: Marker, extra: str) -> bool:
    return any(marker.evaluate({**python, "extra": extra}) for python in ({}, _OLDEST_PYTHON))


def _needs(evidence: Evidence, pins: Mapping[str, str]) -> Iterator[str]:
    """Whether the lock has what is needed, in a version that fits, and nothing else."""
    needed: set[str] = set()
    asked = (text for part in _direct(evidence.project).values() for text in part)
    for requirement, asker in _closure(asked, evidence):
        name = canonicalize_name(requirement.name)
        needed.add(name)
        if name not in pins:
            yield f"{name} is needed by {asker} and not in the lock: renew the lock as its first lines say"
        elif not requirement.specifier.contains(pins[name], prereleases=True):
            yield f"{name} is {pins[name]} in the lock, and {asker} wants {requirement.specifier}: renew the lock"
    for name in sorted(pins.keys() - needed):
        yield f"{name} is in the lock and nothing needs it: renew the lock as its first lines say"


def _licences(evidence: Evidence, pins: Mapping[str, str]) -> Iterator[str]:
    run = {canonicalize_name(one.name) for one, _ in _closure(evidence.project["dependencies"], evidence)}
    for name in sorted(pins.keys() & evidence.installed.keys()):
        licences = evidence.installed[name].licences
        allowed, purpose = (PERMISSIVE, "to run") if name in run else (TO_TEST, "to test")
        if not any(licence <= allowed for licence in licences):
            said = " or ".join(" and ".join(sorted(licence)) for licence in licences) or "none that its metadata name"
            yield f"{name} has a licence that is not allowed {purpose}: {said}; choose another package"


def _declarations(evidence: Evidence, pins: Mapping[str, str]) -> Iterator[str]:
    """Whether what is imported is declared, what is declared is used, and each has its line in the document."""
    parts = {
        part: {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, texts)}
        for part, texts in _direct(evidence.project).items()
    }
    brought = {
        part: {name for requirement in requirements.values() for name in _extras(requirement, evidence.installed)}
        for part, requirements in parts.items()
    }
    own = evidence.project["name"]
    for folder, imported in sorted(evidence.imported.items()):
        allowed = {"bridge": ("run",), "bridge/demo": ("run", "demo")}.get(folder, tuple(parts))
        declared = set().union(*(parts[part].keys() | brought[part] for part in allowed))
        for name in sorted(imported - declared):
            where = " or ".join("dependencies" if part == "run" else part for part in allowed)
            yield f"{name} is imported in {folder} and not declared: add it to {where} in pyproject.toml"
    everywhere = set().union(*evidence.imported.values())
    direct = set().union(*parts.values()) - {own}
    for name in sorted(direct - everywhere):
        file, words = USED_BY_NAME.get(name, ("", ""))
        if not file or words not in (evidence.root / file).read_text(encoding="utf-8"):
            yield f"{name} is declared in pyproject.toml and nothing uses it: take it out"
    documented = _documented(evidence.document)
    for name in sorted((direct | set().union(*brought.values())) - documented):
        yield f"{name} has no line in docs/dependencies.md: say what it is for, and its licence"
    for name in sorted(documented - pins.keys()):
        yield f"{name} stands in docs/dependencies.md and is not in the lock: take it out"


def _extras(requirement: Requirement, installed: Mapping[str, Package]) -> Iterator[str]:
    """Yield the names of what the extras of a requirement bring: ``redis[hiredis]`` brings hiredis."""
    package = installed.get(canonicalize_name(requirement.name))
    for inner in map(Requirement, package.requires if package else []):
        marker = inner.marker
        if marker is None or _holds(marker, ""):
            continue
        if any(_holds(marker, extra) for extra in requirement.extras):
            yield canonicalize_name(inner.name)


def _documented(document: str) -> set[str]:
    """Return the packages that the tables of the document name in their first columns."""
    cells = [line.split("|")[1] for line in document.splitlines() if line.startswith("|") and "---" not in line]
    words = [word for cell in cells if "(system)" not in cell for word in re.split(r",| with ", cell)]
    return {str(canonicalize_name(word.strip())) for word in words} - {"package"}


def _package(found: Distribution) -> Package:
    metadata = found.metadata
    classified = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or []
        if text.startswith("License :: OSI Approved :: ")
    ]
    expression = metadata.get("License-Expression")
    if expression is None and not classified:
        expression = metadata.get("License") or ""
    if expression is None:  # several are alternatives or not, they do not say: so all must be allowed
        licences = [frozenset(LICENCE_NAMES.get(text, text) for text in classified)]
    else:
        licences = [frozenset(one.strip("() ").split(" AND ")) for one in expression.split(" OR ") if one.strip()]
    return Package(found.version, licences, found.requires or [])


def _imported(root: Path) -> dict[str, set[str]]:
    """Return top folder -> packages that its source imports; the demo is a folder of its own."""
    providers = packages_distributions()
    imported: dict[str, set[str]] = {}
    for path in sorted(path for top in ("bridge", "tests", "scripts") for path in (root / top).rglob("*.py")):
        inside = path.relative_to(root)
        folder = "bridge/demo" if inside.parts[:2] == ("bridge", "demo") else inside.parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found = {str(canonicalize_name(one)) for one in providers.get(name.partition(".")[0], ())}
                imported.setdefault(folder, set()).update(found)
    return imported


def gather(root: Path) -> Evidence:
    """Read the files of a checkout and what is installed beside the running Python."""
    return Evidence(
        (root / "requirements.lock").read_text(encoding="utf-8"),
        tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"],
        (root / "docs/dependencies.md").read_text(encoding="utf-8"),
        {str(canonicalize_name(found.name)): _package(found) for found in distributions()},
        _imported(root),
        root,
    )


def main() -> int:
    """Print what is wrong; returns the exit code."""
    argparse.ArgumentParser(
        prog="scripts/audit",
        description="""Audits the packages that the project stands on, without a network: each requirement of
requirements.lock has one version and hashes, and none names a host; what is installed in .venv is what the lock says;
the lock holds what pyproject.toml and the packages themselves ask for, in versions that fit, and nothing else; each
licence is allowed (permissive; for tests and checks MPL-2.0 too); what the source imports is declared, what is declared
is used, and has its line in docs/dependencies.md. Exit code 1: something is wrong, a line for each.""",
        epilog="""Known vulnerabilities are asked of a service, so that needs a network. In a virtual environment of its
own: `pip install pip-audit`, then `pip-audit --strict --require-hashes --disable-pip -r requirements.lock`. Without
--strict it passes over each package that it could not ask about, and still says that none is vulnerable.""",
    ).parse_args()
    evidence = gather(ROOT)
    wrong = faults(evidence)
    for line in wrong:
        print(f"audit: {line}")
    if not wrong:
        print(f"audit: {len(evidence.installed.keys() - FROM_VENV)} packages, nothing wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
