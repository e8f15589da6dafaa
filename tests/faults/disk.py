"""A disk of its own for a server, so that it can lose its power: what was never written through is gone then."""

import os
import shutil
import subprocess
from pathlib import Path

SIZE_BYTES = 64 * 1024 * 1024


class Disk:
    """An ext4 file system in an image file, mounted by a loop device; a context manager. Needs root.

    Args:
        directory: for the image and the place where it is mounted.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, directory: Path) -> None:
        self._image = directory / "disk.img"
        self.path = directory / "disk"

    def __enter__(self) -> "Disk":
        self.path.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _do("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        _do("umount", str(self.path))

    def photograph(self) -> None:
        """Keep a copy of what has reached the device by now; the page cache has not. Freeze who writes before it."""
        _do("cp", "--sparse=always", str(self._image), f"{self._image}.kept")

    def lose_power(self) -> None:
        """Go on from the copy. Nobody may use the disk meanwhile."""
        _do("umount", str(self.path))
        shutil.move(f"{self._image}.kept", self._image)
        self._mount()

    def _mount(self) -> None:
        _do("mount", "-o", "loop", str(self._image), str(self.path))
        self.path.chmod(0o777)


def is_possible() -> bool:
    """Whether disks can be made here."""
    return os.geteuid() == 0 and shutil.which("mkfs.ext4") is not None and Path("/dev/loop-control").exists()


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
