"""Poison: a message that ends the process (a crash in a library, memory eaten up) must not do so for ever.

While messages are in flight, marks of them stand in a small file that is mapped into memory: a mark costs no system
call, and the kernel keeps it when the process dies. After an unclean end those that were in flight are suspects: each
runs alone, after everything else has come to rest, with a mark of its own before it. What has ended the process three
times (once among others, then twice alone) is dead. A suspect that ends otherwise is one no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from flowengine.delivery.store import Store
from flowengine.errors import StartError
from flowengine.i18n import N_, _

ENDS_ALONE = 2
"""So many ends alone, after the one among others, make a message dead."""
NONE = b"\0" * 16
_SLOTS = 4096
_ALONE = 0
_ARRIVING = 1
_FIRST_FREE = 2
_PIECE = 512
_REST_WITHIN = 15.0
_LOOK = 0.01
log: Any = structlog.get_logger("flowengine.poison")
_pack = struct.Struct("<IIII").pack


def mark_of(payload: Any) -> bytes:
    """16 bytes that tell a message again after a restart: its length and checksums of its beginning and end."""
    if type(payload) is not bytes:
        return NONE
    return _pack(len(payload) | 1, zlib.crc32(payload[:_PIECE]), zlib.crc32(payload[-_PIECE:]), 1)


def _mapped(path: Path) -> mmap.mmap:
    """The file of the marks, in memory. It is written first: a page without room on the disk would end the process."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as file:
        marks = (file.read(_SLOTS * 16) or b"").ljust(_SLOTS * 16, b"\0")
        file.seek(0)
        if file.write(marks) < len(marks):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return mmap.mmap(file.fileno(), len(marks))


def mark_of_row(action: str, message_id: str, part: str) -> bytes:
    """The mark of a stored message."""
    text = f"{action}\0{message_id}\0{part}".encode()
    return _pack(zlib.crc32(text), zlib.crc32(text[::-1]), len(text), 2)


def verdict() -> str:
    """Why a poisonous message is dead."""
    return _("it ended the process three times")


class Watch:
    """The marks of one state folder. Without a folder it marks nothing and suspects nobody."""

    def __init__(self, folder: Path | None = None) -> None:
        self.suspects: dict[bytes, int] = {}
        """How often each has ended the process alone."""
        self.closed = False
        """A suspect runs alone: nothing else may begin."""
        self.running = NONE
        """The suspect that runs alone."""
        self.active = 0
        """Attempts under way."""
        self.held: deque[tuple[bytes, Callable[[], None], Callable[[], Awaitable[None]]]] = deque()
        """Arrivals that wait their turn behind a suspect: the mark, and how each is let in, among others or alone."""
        self.reopened: list[Callable[[], None]] = []
        """Whom to tell that work may begin again."""
        self._path = folder / "in-flight" if folder is not None else None
        self._marks: mmap.mmap | bytearray = bytearray(_SLOTS * 16)
        self._next = _FIRST_FREE
        self._one = asyncio.Lock()
        self._letting_in: asyncio.Task[None] | None = None
        self._store: Store | None = None

    async def open(self, store: Store) -> None:
        """Read who was in flight when the run before ended, if that end was unclean; raises StartError."""
        assert self._path is not None
        self._store = store
        try:
            marks = _mapped(self._path)
        except OSError as error:
            text = _("the file {file} cannot be written: {reason}")
            raise StartError(text.format(file=self._path, reason=error.strerror)) from None
        found = {marks[at : at + 16] for at in range(0, _SLOTS * 16, 16)} - {NONE}
        alone = marks[_ALONE * 16 : _ALONE * 16 + 16]
        marks[:] = NONE * _SLOTS
        self._marks = marks
        if store.clean:
            store.execute("DELETE FROM suspects", ())
            return
        known = dict(await store.read(lambda db: db.execute("SELECT mark, ends FROM suspects").fetchall()))
        self.suspects = {bytes.fromhex(mark): ends for mark, ends in known.items()}
        for mark in found:
            self.suspects.setdefault(mark, 0)
        if alone != NONE:
            self.suspects[alone] += 1
        if self.suspects:
            log.warning(
                N_("the run before did not end as it should; what was in flight runs alone"),
                messages=len(self.suspects),
            )
        rows = [(mark.hex(), ends) for mark, ends in self.suspects.items()]
        store.execute("INSERT OR REPLACE INTO suspects VALUES (?, ?)", *rows)

    def slot(self) -> int:
        """A place for the marks of one worker; 0 where there is none left."""
        if self._next >= _SLOTS:
            return 0
        self._next += 1
        return (self._next - 1) * 16

    def set(self, slot: int, mark: bytes) -> None:
        """Something begins, or with NONE has ended. What a suspect waits for does not count against it."""
        if slot:
            self._marks[slot : slot + 16] = mark
        if self.closed:
            self._marks[:16] = mark if mark == self.running else NONE

    def arrive(self, mark: bytes) -> None:
        """The steps of a message begin. The mark is not taken back: the next arrival writes over it."""
        self._marks[_ARRIVING * 16 : _ARRIVING * 16 + 16] = mark
        if self.closed:
            self._marks[:16] = mark

    def bars(self, mark: bytes) -> bool:
        """Whether a message of this mark must wait until a suspect has ended."""
        return self.closed and mark != self.running

    def hold(self, mark: bytes, let_in: Callable[[], None], alone: Callable[[], Awaitable[None]]) -> None:
        """Let an arrival wait until those held before it were let in, suspects or not, and no suspect runs."""
        self.held.append((mark, let_in, alone))
        if self._letting_in is None:
            self._letting_in = asyncio.get_running_loop().create_task(self._let_in())

    async def _let_in(self) -> None:
        try:
            while self.held:
                mark, let_in, alone = self.held[0]
                if mark in self.suspects and not self.is_dead(mark):
                    async with self.alone(mark):
                        self.held.popleft()
                        await alone()
                    continue
                async with self._one:  # a stored suspect may run
                    while self.held and (self.held[0][0] not in self.suspects or self.is_dead(self.held[0][0])):
                        _mark, let_in, _alone = self.held.popleft()
                        let_in()
        finally:
            self._letting_in = None

    async def stop(self) -> None:
        """Let nothing in any more: what is held stays with its sender."""
        if self._letting_in is not None:
            self._letting_in.cancel()
            await asyncio.gather(self._letting_in, return_exceptions=True)

    def is_dead(self, mark: bytes) -> bool:
        """Whether a suspect has ended the process too often."""
        return self.suspects.get(mark, 0) >= ENDS_ALONE

    @contextlib.asynccontextmanager
    async def alone(self, mark: bytes) -> AsyncIterator[None]:
        """Run a suspect while nothing else does. If the process lives to the end of this, it is a suspect no more."""
        async with self._one:
            self.closed = True
            try:
                await self._rest()
                self.running = mark
                yield
            finally:
                self._marks[:16] = self.running = NONE
                self.acquit(mark)
                self.closed = False
                for tell in self.reopened:
                    tell()

    def acquit(self, mark: bytes) -> None:
        """A suspect has ended, one way or the other."""
        if self.suspects.pop(mark, None) is not None and self._store is not None:
            self._store.execute("DELETE FROM suspects WHERE mark = ?", (mark.hex(),))

    async def _rest(self) -> None:
        """Wait until attempts under way have ended, for so long."""
        latest = asyncio.get_running_loop().time() + _REST_WITHIN
        while self.active and asyncio.get_running_loop().time() < latest:
            await asyncio.sleep(_LOOK)
