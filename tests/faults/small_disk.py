"""A disk of a few megabytes that can be filled to the last byte."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2
_PAGE = 4096


class SmallDisk:
    """A tmpfs at `folder`, in a mount namespace that only the calling thread and the processes it starts see.

    with SmallDisk(tmp_path / "state", megabytes=48) as disk:
        disk.fill(leave=0)                  # others take all that is free
        disk.free()                         # and give it back

    Nothing is left behind, even if the test is killed. Where this is not allowed, the test is skipped and says so.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        self._megabytes = megabytes
        self._outside = -1

    def fill(self, leave: int = 0) -> None:
        """Take what is free but for about `leave` bytes."""
        with open(self.folder / "filler", "ab", buffering=0) as filler:
            for size in (1 << 20, _PAGE):
                while self._room() - leave >= size:
                    filler.write(b"\0" * size)

    def free(self) -> None:
        """Give it back."""
        (self.folder / "filler").unlink()

    def _room(self) -> int:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize

    def __enter__(self) -> Self:
        self.folder.mkdir()
        if sys.platform != "linux":
            pytest.skip("no small disk: mount namespaces are Linux's")
        self._outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
        try:
            _call("unshare", _CLONE_NEWNS)
        except OSError as error:
            os.close(self._outside)
            pytest.skip(f"no small disk: a mount namespace is not allowed here ({error.strerror}); be root")
        try:
            _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
            size = f"size={self._megabytes}m,mode=700".encode()
            _call("mount", b"tmpfs", os.fsencode(self.folder), b"tmpfs", 0, size)
        except OSError as error:
            self._leave()
            pytest.skip(f"no small disk: it cannot be mounted ({error.strerror})")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _call("umount2", os.fsencode(self.folder), _MNT_DETACH)
        self._leave()

    def _leave(self) -> None:
        working_folder = os.getcwd()
        _call("unshare", _CLONE_FS)  # threads that the test has started share it
        _call("setns", self._outside, _CLONE_NEWNS)
        os.close(self._outside)
        os.chdir(working_folder)  # setns has made it the root


def _call(name: str, *arguments: int | bytes | None) -> None:
    """A function of the C library, which os has from Python 3.12 on, or not at all. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    typed = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(libc, name)(*typed) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
