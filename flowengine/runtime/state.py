"""The state folder: what outlives a restart. One engine at a time; readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from flowengine.errors import StartError
from flowengine.i18n import _

if os.name == "nt":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        os.lseek(file.fileno(), 1 << 20, os.SEEK_SET)  # away from the pid, which others shall be able to read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _private(path: str, flags: int) -> int:
    file = os.open(path, flags, 0o600)
    if os.name != "nt":
        os.fchmod(file, 0o600)  # an older version left it open to others
    return file


class StateFolder:
    """A locked state folder. Raises StartError if it cannot be made or another engine has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "lock").exists() or not any(path.iterdir()):  # else it is somebody's folder: `--state .`
                path.chmod(0o700)
            self._file = open(path / "lock", "a+", encoding="utf-8", opener=_private)  # noqa: SIM115 - held while it runs
        except OSError as error:
            text = _("the state folder {path} cannot be used: {reason}; choose another with --state DIR")
            raise StartError(text.format(path=path, reason=error.strerror)) from None
        try:
            _lock(self._file)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "?"
            self._file.close()
            text = _(
                "the state folder {path} is in use by the flowengine with process id {pid}; "
                "stop it, or choose another with --state DIR"
            )
            raise StartError(text.format(path=path, pid=owner)) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another engine have it."""
        self._file.close()
