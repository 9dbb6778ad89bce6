"""What programs see of a mounted tree, on both drivers."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import threading
from pathlib import Path

import pytest
from support.mounts import Mounted
from support.trees import BIG, FILES, LINKS, ODD

from dagfs.vfs.memory import INODE_BASE, MTIME

pytestmark = pytest.mark.mount


def test_every_file_has_its_bytes(held: Mounted) -> None:
    for name, data in FILES.items():
        assert (held.path / name).read_bytes() == data, name


def test_stat_shows_size_type_mode_times_and_owner(held: Mounted) -> None:
    status = os.stat(held.path / "images/b.bin")
    assert (status.st_size, status.st_mode) == (300_001, stat.S_IFREG | 0o444)
    assert status.st_mtime_ns == 1_600_000_000_250_000_000 == int(MTIME) * 10**9 + 250_000_000
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert status.st_blocks == -(-300_001 // 512)
    assert stat.S_IMODE(os.stat(held.path / "images").st_mode) == 0o555


def test_a_directory_has_a_link_for_each_of_its_directories(held: Mounted) -> None:
    assert os.stat(held.path / "images").st_nlink == 3
    assert os.stat(held.path / "hollow").st_nlink == 2
    assert os.stat(held.path / "small.txt").st_nlink == 1


def test_inode_numbers_are_the_file_systems_own_in_stat_and_in_listings(held: Mounted) -> None:
    with os.scandir(held.path) as entries:
        for entry in entries:
            assert entry.inode() == os.lstat(entry.path).st_ino > INODE_BASE


def test_listings_name_every_entry_once_with_its_type(held: Mounted) -> None:
    with os.scandir(held.path) as entries:
        kinds = {entry.name: (entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries}
    assert kinds == {
        **dict.fromkeys(("small.txt", "empty", "huge"), (False, False)),
        **dict.fromkeys(("images", "odd", "hollow"), (True, False)),
        **dict.fromkeys(("link", "dangling"), (False, True)),
    }
    assert os.listdir(held.path / "hollow") == []


def test_odd_names_are_the_same_bytes_in_listing_and_lookup(held: Mounted) -> None:
    assert sorted(os.listdir(os.fsencode(held.path / "odd"))) == sorted(map(os.fsencode, ODD))
    for name in ODD:
        assert (held.path / "odd" / name).read_bytes() == os.fsencode(name)


def test_symbolic_links_are_read_and_followed(held: Mounted) -> None:
    for name, target in LINKS.items():
        assert os.readlink(held.path / name) == target
        assert stat.S_ISLNK(os.lstat(held.path / name).st_mode)
        assert os.lstat(held.path / name).st_size == len(target)
    assert (held.path / "images/up").read_bytes() == b"hello\n"
    with pytest.raises(FileNotFoundError):
        os.stat(held.path / "dangling")


def _errno(call: object, *arguments: object) -> int:
    with pytest.raises(OSError) as caught:  # noqa: PT011 -- the errno is what each caller asserts on
        call(*arguments)  # type: ignore[operator]
    return caught.value.errno or 0


def test_wrong_paths_fail_as_on_a_local_disk(held: Mounted) -> None:
    path = held.path
    assert _errno(os.stat, path / "no") == errno.ENOENT
    assert _errno(os.stat, path / "no/further") == errno.ENOENT
    assert _errno(os.stat, path / "small.txt/below") == errno.ENOTDIR
    assert _errno(os.listdir, path / "small.txt") == errno.ENOTDIR
    assert _errno(open, path / "images") == errno.EISDIR
    assert _errno(os.readlink, path / "small.txt") == errno.EINVAL
    assert _errno(os.stat, path / ("n" * 256)) == errno.ENAMETOOLONG


def test_every_write_is_refused_as_read_only(held: Mounted) -> None:
    file, new = held.path / "small.txt", held.path / "new"
    calls = [
        (open, file, "r+"),
        (open, file, "w"),
        (open, new, "w"),
        (os.mkdir, new),
        (os.unlink, file),
        (os.rmdir, held.path / "hollow"),
        (os.rename, file, new),
        (os.link, file, new),
        (os.symlink, "x", new),
        (os.truncate, file, 1),
        (os.chmod, file, 0o777),
        (os.utime, file),
        (os.mkfifo, new),
        (os.setxattr, file, "user.x", b"y"),
    ]
    for call, *arguments in calls:
        assert _errno(call, *arguments) == errno.EROFS, call
    assert not os.access(file, os.W_OK)
    assert os.access(file, os.R_OK)
    assert os.access(held.path / "images", os.X_OK)


def test_statfs_shows_the_figures(held: Mounted) -> None:
    figures = os.statvfs(held.path / "images")
    assert (figures.f_bsize, figures.f_blocks, figures.f_bavail, figures.f_namemax) == (4096, 1000, 0, 255)
    assert figures.f_flag & os.ST_RDONLY
    assert figures.f_flag & os.ST_NOSUID
    assert figures.f_flag & os.ST_NODEV


def test_extended_attributes_are_given_in_the_user_namespace_only(held: Mounted) -> None:
    file = held.path / "small.txt"
    assert os.listxattr(file) == ["user.dagfs.commit"]
    assert os.getxattr(file, "user.dagfs.commit") == b"0" * 40
    assert _errno(os.getxattr, file, "user.none") == errno.ENODATA
    for name in ("security.selinux", "security.capability", "system.posix_acl_access"):
        assert _errno(os.getxattr, file, name) == errno.EOPNOTSUPP


def test_a_mapping_shows_the_files_bytes(held: Mounted) -> None:
    data = FILES["images/deep/er/c.bin"]
    with open(held.path / "images/deep/er/c.bin", "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[4_000_000:4_000_100] == data[4_000_000:4_000_100]
            assert mapped[:] == data
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
            private[0] = 255
            assert private[1:50] == data[1:50]


def test_direct_reads_give_the_files_bytes(held: Mounted) -> None:
    data = FILES["images/b.bin"]
    fd = os.open(held.path / "images/b.bin", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 16) as page:
            assert os.preadv(fd, [page], 4096) == 1 << 16
            assert page[:] == data[4096 : 4096 + (1 << 16)]
            rest = os.preadv(fd, [page], 262_144)
            assert page[:rest] == data[262_144:]
    finally:
        os.close(fd)


def test_sendfile_gives_the_files_bytes(held: Mounted, tmp_path: Path) -> None:
    with open(held.path / "images/b.bin", "rb") as source, open(tmp_path / "copy", "wb") as target:
        sent = 0
        while step := os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
            sent += step
    assert sent == 300_001
    assert (tmp_path / "copy").read_bytes() == FILES["images/b.bin"]


def test_offsets_beyond_four_gigabytes_and_beyond_the_end_are_exact(held: Mounted) -> None:
    fd = os.open(held.path / "huge", os.O_RDONLY)
    try:
        assert os.fstat(fd).st_size == BIG
        assert os.pread(fd, 10_000, 5 << 30) == bytes(10_000)
        assert os.pread(fd, 10_000, BIG - 7) == bytes(7)
        assert os.pread(fd, 10, BIG) == os.pread(fd, 10, BIG + 4096) == b""
        assert os.lseek(fd, 0, os.SEEK_END) == BIG
        assert os.lseek(fd, 100, os.SEEK_DATA) == 100
        assert os.lseek(fd, 100, os.SEEK_HOLE) == BIG
    finally:
        os.close(fd)


def test_readers_at_the_same_time_each_get_their_bytes(held: Mounted) -> None:
    data = FILES["images/deep/er/c.bin"]
    wrong: list[int] = []

    def reader(start: int) -> None:
        fd = os.open(held.path / "images/deep/er/c.bin", os.O_RDONLY)
        for offset in range(start, len(data), 177_777):
            os.posix_fadvise(fd, offset, 8192, os.POSIX_FADV_DONTNEED)
            if os.pread(fd, 4097, offset) != data[offset : offset + 4097]:
                wrong.append(offset)
        os.close(fd)

    threads = [threading.Thread(target=reader, args=(start * 1000,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
