"""A directory's children as columns: about 33 bytes an entry beside its name, and no object per file."""

from __future__ import annotations

import bisect
import json
import struct
import sys
from array import array
from collections.abc import Sequence

from dagfs.model import Kind, Versioning
from dagfs.tree.codec import seal, unseal

UNKNOWN = -1
"""A size that nobody has told yet."""

HIDDEN_SHOWN = 100
"""How many hidden names are kept for `status`; all of them are counted."""

ROW_BYTES = 17
"""Of a row beside its name and hash: flag, size, and where the two end."""

_KINDS = (Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK)
_VERSIONINGS = tuple(Versioning)
_HEX, _HEX_DIR = 1, 2  # forms of a packed hash: lower-case hex digits, the same followed by ".dir"; 0 is plain text
_STRIDE = 64
"""Every how many names one is kept as an object: a lookup bisects these in C, and then only six names in Python."""
_HEADER = struct.Struct("<QQQQQ")  # entries, hidden names, bytes of: names, hashes, JSON of the hidden names shown


class Columns:
    """The rows of a listing in the order of their names' bytes.

    Names, kinds and hashes never change. `sizes` does: UNKNOWN turns into a size once (`Listing.learn`).
    """

    __slots__ = ("_samples", "flags", "hash_ends", "hashes", "hidden", "hidden_names", "name_ends", "names", "sizes")

    def __init__(self, names: bytes, name_ends: array[int], flags: bytearray, sizes: array[int]) -> None:
        self.names = names
        self.name_ends = name_ends  # starts with 0: row i is names[name_ends[i]:name_ends[i + 1]]
        self.flags = flags
        self.sizes = sizes
        self.hashes = b""
        self.hash_ends = array("I", [0])
        self.hidden = 0
        self.hidden_names: tuple[str, ...] = ()
        self._samples = [self.name(i) for i in range(0, len(flags), _STRIDE)]

    def __len__(self) -> int:
        return len(self.flags)

    def name(self, position: int) -> bytes:
        return self.names[self.name_ends[position] : self.name_ends[position + 1]]

    def find(self, name: bytes) -> int:
        """Give the position of a name, -1 when there is none."""
        block = bisect.bisect_right(self._samples, name) - 1
        if block < 0:
            return -1
        names, ends = self.names, self.name_ends
        low, high = block * _STRIDE, min((block + 1) * _STRIDE, len(self.flags))
        while high - low > 1:
            middle = (low + high) >> 1
            if names[ends[middle] : ends[middle + 1]] <= name:
                low = middle
            else:
                high = middle
        return low if names[ends[low] : ends[low + 1]] == name else -1

    def kind(self, position: int) -> Kind:
        return _KINDS[self.flags[position] & 3]

    def versioning(self, position: int) -> Versioning:
        return _VERSIONINGS[(self.flags[position] >> 2) & 3]

    def hash(self, position: int) -> str:
        raw = self.hashes[self.hash_ends[position] : self.hash_ends[position + 1]]
        form = self.flags[position] >> 4
        if form == _HEX:
            return raw.hex()
        return raw.hex() + ".dir" if form == _HEX_DIR else raw.decode("utf-8", "surrogatepass")

    def reveal_directory(self, position: int) -> None:
        """Turn a row that was listed as a file into the directory that it is (a submodule)."""
        self.flags[position] &= ~3

    @property
    def directories(self) -> int:
        """How many rows are directories."""
        return sum(count for flag, count in _histogram(self.flags) if not flag & 3)

    def directories_before(self, position: int) -> int:
        """Count the sub-directories among the rows before `position`."""
        return sum(count for flag, count in _histogram(self.flags[:position]) if not flag & 3)

    def directories_after(self, position: int, count: int) -> list[int]:
        """Give the positions of up to `count` sub-directories that follow."""
        found: list[int] = []
        for row in range(position + 1, len(self.flags)):
            if len(found) >= count:
                break
            if not self.flags[row] & 3:
                found.append(row)
        return found

    @property
    def cost(self) -> int:
        """Bytes of memory, roughly."""
        told = 2 * sum(map(len, self.hidden_names))  # a hub may hide a hundred names of a thousand letters everywhere
        return len(self.names) + len(self.hashes) + ROW_BYTES * len(self.flags) + 64 * len(self._samples) + told

    def to_bytes(self) -> bytes:
        """Serialise everything but the sizes, which are kept apart because they change."""
        shown = json.dumps(self.hidden_names).encode()
        header = _HEADER.pack(len(self), self.hidden, len(self.names), len(self.hashes), len(shown))
        parts = (header, self.names, self.hashes, shown, self.flags, _packed(self.name_ends), _packed(self.hash_ends))
        return seal("listing", b"".join(parts))

    @classmethod
    def from_bytes(cls, sealed: bytes | None) -> Columns | None:
        """Read what `to_bytes` wrote; None when it is damaged, of another format, or missing."""
        body = unseal("listing", sealed)
        if body is None or len(body) < _HEADER.size:
            return None
        rows, hidden, *lengths = _HEADER.unpack_from(body)
        ends = 4 * (rows + 1)
        lengths += [rows, ends, ends]
        if _HEADER.size + sum(lengths) != len(body):
            return None
        parts = _cut(body, _HEADER.size, lengths)
        sizes = array("q", [UNKNOWN]) * rows
        columns = cls(parts[0], _unpacked("I", parts[4]), bytearray(parts[3]), sizes)
        columns.hashes, columns.hash_ends = parts[1], _unpacked("I", parts[5])
        columns.hidden, columns.hidden_names = hidden, tuple(json.loads(parts[2]))
        return columns


def flag_of(kind: Kind, versioning: Versioning) -> int:
    """Give a row's flag byte, without the form of its hash."""
    return _KINDS.index(kind) | versioning << 2


def pack_hash(text: str) -> tuple[int, bytes]:
    """Give what to add to a row's flag, and the bytes of its hash: 16 for an MD5 instead of 32."""
    form, digits = (_HEX_DIR, text[:-4]) if text.endswith(".dir") else (_HEX, text)
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        raw = b""
    if raw and raw.hex() == digits:
        return form << 4, raw
    return 0, text.encode("utf-8", "surrogatepass")


def pack_hashes(texts: Sequence[str]) -> tuple[int, int, bytes] | None:
    """Do the same for many of one length, without ".dir": what to add to the flags, the bytes of each, and all bytes.

    None when they are not such texts.
    """
    widths = set(map(len, texts))
    if len(widths) != 1 or any(width % 2 for width in widths):
        return None
    width, digits = widths.pop(), "".join(texts)
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    return (_HEX << 4 if width else 0, width // 2, raw) if raw.hex() == digits else None


def sizes_to_bytes(sizes: array[int], complete: bool) -> bytes:
    """Serialise the sizes known so far; `complete`: the hub was asked for all of them."""
    return seal("sizes", bytes([complete]) + _packed(sizes))


def sizes_from_bytes(sealed: bytes | None, rows: int) -> tuple[array[int], bool] | None:
    """Read what `sizes_to_bytes` wrote; None when it is damaged or belongs to another listing."""
    body = unseal("sizes", sealed)
    if body is None or len(body) != 1 + 8 * rows:
        return None
    return _unpacked("q", body[1:]), bool(body[0])


def _histogram(flags: bytearray) -> Sequence[tuple[int, int]]:
    return [(flag, flags.count(flag)) for flag in set(flags)]


def _cut(body: bytes, start: int, lengths: Sequence[int]) -> list[bytes]:
    parts = []
    for length in lengths:
        parts.append(body[start : start + length])
        start += length
    return parts


def _packed(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _unpacked(code: str, data: bytes) -> array[int]:
    values = array(code)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values
