"""A reader in the manner of fsx: python fsx.py SEED OPERATIONS MOUNT TRUTH, directories with the same files.

Reads at random places in every way there is, on many descriptors at once, and compares each with the truth. Ends with
status 1 and the last operations at the first difference; the seed repeats it.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable

DESCRIPTORS_MAX = 24
MAPS_MAX = 6
LONGEST = 300_000
PAGE = mmap.PAGESIZE


class DifferenceError(Exception):
    """What was read is not the truth."""


class Fsx:
    def __init__(self, seed: int, mount: str, truth: str) -> None:
        self.random = random.Random(seed)
        self.mount = mount
        self.truth: dict[str, bytes] = {}
        for directory, _, names in os.walk(truth):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    self.truth[os.path.relpath(path, truth)] = file.read()
        self.paths = sorted(self.truth)
        self.open: list[tuple[int, str]] = []
        self.maps: list[tuple[mmap.mmap, str]] = []
        self.log: deque[str] = deque(maxlen=30)
        self.counts: Counter[str] = Counter()
        self.scratch = os.memfd_create("fsx")
        self.operations: list[Callable[[], None]] = [
            self.open_one, self.close_one, self.dup_one, self.read, self.pread, self.pread, self.readv, self.preadv,
            self.map_one, self.look_into_map, self.look_into_map, self.unmap_one, self.sendfile, self.copy_file_range,
            self.direct, self.fork, self.advise, self.stat, self.whole,
        ]  # fmt: skip

    def run(self, operations: int) -> None:
        for _ in range(operations):
            operation = self.random.choice(self.operations)
            self.counts[operation.__name__] += 1
            operation()

    def note(self, *words: object) -> None:
        self.log.append(" ".join(map(str, words)))

    def same(self, found: bytes, path: str, offset: int, size: int) -> None:
        wanted = self.truth[path][offset : offset + size]
        if found != wanted:
            pairs = enumerate(zip(found, wanted, strict=False))
            first = next((i for i, (a, b) in pairs if a != b), min(len(found), len(wanted)))
            what = f"{len(found)} of {len(wanted)} bytes at {offset}"
            raise DifferenceError(f"{path}: {what}, different from {offset + first} on")

    def place(self, path: str, longest: int = LONGEST) -> tuple[int, int]:
        """Give an offset, at times beyond the end, and a size; often around the borders of pages and blocks."""
        size = len(self.truth[path])
        border = self.random.choice((1, 1, PAGE, 131_072, 262_144))
        offset = self.random.randrange(size + size // 20 + 2) // border * border
        offset = max(0, offset + self.random.choice((-1, 0, 0, 1)))
        return offset, self.random.choice((0, 1, 100, PAGE, PAGE + 1, self.random.randrange(longest)))

    def descriptor(self) -> tuple[int, str]:
        if not self.open:
            self.open_one()
        return self.random.choice(self.open)

    def open_one(self) -> None:
        if len(self.open) >= DESCRIPTORS_MAX:
            self.close_one()
        path = self.random.choice(self.paths)
        self.note("open", path)
        self.open.append((os.open(os.path.join(self.mount, path), os.O_RDONLY), path))

    def close_one(self) -> None:
        if self.open:
            fd, path = self.open.pop(self.random.randrange(len(self.open)))
            self.note("close", path)
            os.close(fd)

    def dup_one(self) -> None:
        if self.open and len(self.open) < DESCRIPTORS_MAX:
            fd, path = self.random.choice(self.open)
            self.note("dup", path)
            self.open.append((os.dup(fd), path))

    def read(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("lseek and read", path, offset, size)
        os.lseek(fd, offset, os.SEEK_SET)
        self.same(os.read(fd, size), path, offset, size)
        left = max(0, len(self.truth[path]) - offset - size)
        at = os.lseek(fd, 0, os.SEEK_CUR)
        self.same(os.read(fd, 100), path, at, min(100, left) if at < len(self.truth[path]) else 0)

    def pread(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("pread", path, offset, size)
        self.same(os.pread(fd, size, offset), path, offset, size)

    def readv(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("readv", path, offset, size)
        os.lseek(fd, offset, os.SEEK_SET)
        buffers = [bytearray(size // 3), bytearray(1), bytearray(size)]
        came = os.readv(fd, buffers)
        self.same(b"".join(buffers)[:came], path, offset, sum(map(len, buffers)))

    def preadv(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("preadv", path, offset, size)
        buffers = [bytearray(7), bytearray(size)]
        came = os.preadv(fd, buffers, offset)
        self.same(b"".join(buffers)[:came], path, offset, size + 7)

    def map_one(self) -> None:
        fd, path = self.descriptor()
        if not self.truth[path]:
            return
        if len(self.maps) >= MAPS_MAX:
            self.unmap_one()
        self.note("mmap", path)
        flags = self.random.choice((mmap.MAP_SHARED, mmap.MAP_PRIVATE))
        self.maps.append((mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ), path))

    def look_into_map(self) -> None:
        if self.maps:
            mapped, path = self.random.choice(self.maps)
            offset, size = self.place(path)
            self.note("look into map", path, offset, size)
            self.same(mapped[offset : offset + size], path, offset, size)

    def unmap_one(self) -> None:
        if self.maps:
            mapped, path = self.maps.pop(self.random.randrange(len(self.maps)))
            self.note("munmap", path)
            mapped.close()

    def sendfile(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("sendfile", path, offset, size)
        os.ftruncate(self.scratch, 0)
        os.lseek(self.scratch, 0, os.SEEK_SET)
        came = 0
        while came < size and (step := os.sendfile(self.scratch, fd, offset + came, size - came)):
            came += step
        self.same(os.pread(self.scratch, size, 0), path, offset, size)

    def copy_file_range(self) -> None:
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("copy_file_range", path, offset, size)
        os.ftruncate(self.scratch, 0)
        came = 0
        try:
            while came < size and (step := os.copy_file_range(fd, self.scratch, size - came, offset + came, came)):
                came += step
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):  # the kernel's, without asking us
                raise
            return
        self.same(os.pread(self.scratch, size, 0), path, offset, size)

    def direct(self) -> None:
        _, path = self.descriptor()
        offset, size = self.place(path)
        offset, size = offset // PAGE * PAGE, size // PAGE * PAGE + PAGE
        self.note("O_DIRECT", path, offset, size)
        fd = os.open(os.path.join(self.mount, path), os.O_RDONLY | os.O_DIRECT)
        try:
            buffer = mmap.mmap(-1, size)
            came = os.preadv(fd, [buffer], offset)
            self.same(buffer[:came], path, offset, size)
            buffer.close()
        finally:
            os.close(fd)

    def fork(self) -> None:
        """Read in a child, by a descriptor and a map that it inherits."""
        fd, path = self.descriptor()
        offset, size = self.place(path)
        self.note("fork and pread", path, offset, size)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.same(os.pread(fd, size, offset), path, offset, size)
                self.look_into_map()
                status = 0
            except BaseException as error:  # noqa: BLE001 -- the parent is told
                print("in a child:", error, flush=True)
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise DifferenceError("a child read something else")

    def advise(self) -> None:
        """Have the kernel drop what it keeps, or read ahead: the next read may come from the daemon."""
        fd, path = self.descriptor()
        advice = self.random.choice(("DONTNEED", "WILLNEED", "RANDOM", "SEQUENTIAL"))
        self.note("fadvise", path, advice)
        os.posix_fadvise(fd, 0, 0, getattr(os, f"POSIX_FADV_{advice}"))

    def stat(self) -> None:
        path = self.random.choice(self.paths)
        self.note("stat", path)
        size = os.stat(os.path.join(self.mount, path)).st_size
        if size != len(self.truth[path]):
            raise DifferenceError(f"{path}: {size} bytes by stat, {len(self.truth[path])} in truth")

    def whole(self) -> None:
        path = self.random.choice(self.paths)
        self.note("whole", path)
        with open(os.path.join(self.mount, path), "rb") as file:
            self.same(file.read(), path, 0, len(self.truth[path]) + 1)


def main() -> int:
    seed, operations, mount, truth = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    fsx = Fsx(seed, mount, truth)
    try:
        fsx.run(operations)
    except (DifferenceError, OSError) as error:
        print(f"seed {seed}: {type(error).__name__}: {error}", *fsx.log, sep="\n  ")
        return 1
    print(f"seed {seed}: {operations} operations, {dict(fsx.counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
