"""Compressed bodies of files without a hash: their bytes are right iff the body ends well, by its own checksum."""

from __future__ import annotations

import zlib


class Unproved:
    """What is doubtful of one load's bytes. Used by one thread at a time; offsets are the file's, in bytes."""

    def __init__(self) -> None:
        self.body = False  # the body that comes is such a one
        self.doubted = False  # what was given came of one that broke off: it has to come again, the same
        self.damaged = False  # and that one did not fit its checksum
        self._withheld: tuple[int, bytes] | None = None  # offset and bytes of its last piece
        self._given_crc: int | None = None  # CRC-32 of what was given, iff that is [0, position) and nothing proves it
        self._again_crc = 0  # of the same bytes, as they come again

    def begin(self, unproved: bool) -> None:
        """A body begins."""
        self.body = unproved
        self._again_crc = 0

    def withhold(self, offset: int, chunk: bytes) -> tuple[int, bytes] | None:
        """Keep a piece until the next comes, and give the one before: who reads to the end waits for the checksum."""
        before, self._withheld = self._withheld, (offset, chunk)
        return before

    def released(self) -> tuple[int, bytes] | None:
        """The body has ended well: give its last piece."""
        self.doubted = self.damaged = False
        last, self._withheld = self._withheld, None
        return last

    def given(self, offset: int, chunk: bytes, *, provable: bool) -> None:
        """A piece is handed on. `provable`: there are other ways to find it wrong than to compare it."""
        if provable:
            self._given_crc = None
        elif offset == 0 or self._given_crc is not None:
            self._given_crc = zlib.crc32(chunk, self._given_crc or 0)

    def same(self, chunk: bytes, left: int) -> bool:
        """What was given comes again, `left` more bytes of it after these; tell whether it can be the same."""
        if self._given_crc is None:
            return True
        self._again_crc = zlib.crc32(chunk, self._again_crc)
        if not left and self._again_crc != self._given_crc:
            return False
        self.doubted = self.doubted and (left > 0 or self.body)
        self.damaged = self.damaged and self.doubted
        return True

    def taken_back(self, position: int) -> int:
        """The body broke off: give the offset up to which its pieces were handed on, `position` unless one was kept."""
        last, self._withheld = self._withheld, None
        return position if last is None else last[0]

    def doubt(self, *, damaged: bool) -> bool:
        """What was given of a body that broke off cannot be taken back; tell whether another may still prove it."""
        self.damaged = self.damaged or (damaged and self.body)
        self.doubted = self.body and self._given_crc is not None
        return self.doubted or not self.damaged
