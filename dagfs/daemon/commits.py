"""Which commits a mount has shown, in memory that the supervisor keeps for one worker after another."""

from __future__ import annotations

import secrets
import struct
import time

from dagfs.errors import Unsupported
from dagfs.memory import shared_memory
from dagfs.model import Commit

ORDINALS = (1 << 16) - 1
"""Commits that one mount can show: what fits beside a directory's number in a node id."""

_NUMBER = struct.Struct("=Q")
_CURRENT, _COUNT, _SINCE, _SESSION, _ROWS = 0, 8, 16, 24, 64  # where they lie, in bytes
_SESSION_BYTES = 8
_ROW = struct.Struct("=20sd")  # sha, time


class CommitTable:
    """Implements `vfs.generations.Ledger`. One worker at a time writes; a number is one store of eight bytes, and a row
    is written before the number that makes it count, so a worker killed anywhere leaves a table that makes sense."""

    def __init__(self, first: Commit, fd: int | None = None) -> None:
        """`first`: of the branch, as it was mounted; `fd`: the table, as another program of the mount has made it."""
        self._branch = first.branch
        self.fd, self._memory = shared_memory("dagfs-commits", _ROWS + (ORDINALS + 1) * _ROW.size, fd)
        if fd is None:
            self._memory[_SESSION : _SESSION + _SESSION_BYTES] = secrets.token_bytes(_SESSION_BYTES)
            self.select(self.add(first))
        self.session = self._memory[_SESSION : _SESSION + _SESSION_BYTES].hex()
        """Names what is kept for this mount only."""

    def current(self) -> int:
        return self._number(_CURRENT)

    def commit(self, ordinal: int) -> Commit | None:
        if not 0 < ordinal <= self._number(_COUNT):
            return None
        sha, moment = _ROW.unpack_from(self._memory, _ROWS + ordinal * _ROW.size)
        return Commit(sha.hex(), moment, self._branch)

    def add(self, commit: Commit) -> int:
        ordinal = self._number(_COUNT) + 1
        if ordinal > ORDINALS:
            raise Unsupported(f"this mount has shown {ORDINALS} commits and can show no more: mount again")
        _ROW.pack_into(self._memory, _ROWS + ordinal * _ROW.size, bytes.fromhex(commit.sha), commit.time)
        self._set(_COUNT, ordinal)
        return ordinal

    def select(self, ordinal: int) -> None:
        self._set(_SINCE, int(time.time()))
        self._set(_CURRENT, ordinal)

    @property
    def since(self) -> int:
        """When the current commit was selected, in seconds since the epoch."""
        return self._number(_SINCE)

    @property
    def shown(self) -> Commit:
        """The current commit."""
        commit = self.commit(self.current())
        assert commit is not None  # noqa: S101 -- the first is there from the beginning  # nosec B101
        return commit

    def _number(self, at: int) -> int:
        return int(_NUMBER.unpack_from(self._memory, at)[0])

    def _set(self, at: int, value: int) -> None:
        _NUMBER.pack_into(self._memory, at, value)
