"""What single works need beside the product: packages, installed below ``build/`` when they are asked for first.

Versions are pinned, by hash as well where there is a lock file. None of them is a dependency of the product.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.load.stand import BUILD, StandError, find_program

INSTALL_SECONDS = 300


def python_packages(lock: Path) -> Path:
    """Install a lock file's packages; returns the folder, to be put on ``PYTHONPATH``.

    Raises:
        StandError: pip could not.
    """
    folder = BUILD / lock.stem
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--target", str(folder), "-r", str(lock)]
    _install(folder, lock, command)
    return folder


def node_packages(source: Path) -> Path:
    """Install what the ``package-lock.json`` in a folder names; returns the folder with ``node_modules``.

    Raises:
        StandError: there is no npm, or it could not.
    """
    npm = find_program("npm")
    if npm is None:
        raise StandError("npm is missing: apt-get install npm")
    folder = BUILD / source.name
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    _install(folder, source / "package-lock.json", command, also=[source / "package.json"])
    return folder


def _install(folder: Path, lock: Path, command: list[str], also: list[Path] | None = None) -> None:
    stamp = folder / "installed.lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in (lock, *(also or ())):
        shutil.copy(file, folder)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)  # noqa: S603 - our own words
    except subprocess.TimeoutExpired:
        raise StandError(f"installing {lock.name} took more than {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise StandError(f"installing {lock.name} failed: {(done.stderr or done.stdout).strip()[-800:]}")
    shutil.copy(lock, stamp)
