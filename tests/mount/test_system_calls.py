"""System calls that libraries make beside reading answer as on a local disk."""

from __future__ import annotations

import json
import subprocess
import sys

from support.hubs import hub

CALLS = """
import ctypes, errno, fcntl, json, mmap, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
path, out = sys.argv[1:]
file = os.open(path, os.O_RDONLY)
size = os.fstat(file).st_size
mapped = mmap.mmap(file, 0, prot=mmap.PROT_READ)


def checked(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result


def spliced():
    reading, writing = os.pipe()
    return os.splice(file, writing, 100, 0), len(os.read(reading, 1000))


def copied():
    target = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        return os.copy_file_range(file, target, 100, 0)
    finally:
        os.close(target)


def lease():
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def mapping(flags, protection):
    return len(mmap.mmap(file, 0, flags=flags, prot=protection)[:1])


calls = {
    "flock shared": lambda: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "flock exclusive": lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lockf shared": lambda: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "lockf exclusive": lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lease": lease,
    "readahead": lambda: checked(libc.readahead(file, ctypes.c_long(0), ctypes.c_size_t(size))),
    "seek data": lambda: os.lseek(file, 0, os.SEEK_DATA),
    "seek hole": lambda: os.lseek(file, 0, os.SEEK_HOLE) == size,
    "seek data beyond the end": lambda: os.lseek(file, size + 1, os.SEEK_DATA),
    "copy_file_range": copied,
    "splice": spliced,
    "fsync": lambda: os.fsync(file),
    "isatty": lambda: os.isatty(file),
    "FIONREAD": lambda: struct.unpack("i", fcntl.ioctl(file, 0x541B, bytes(4)))[0] == size,
    "FS_IOC_GETFLAGS": lambda: fcntl.ioctl(file, 0x80086601, bytes(8)).hex(),
    "preadv2 without waiting": lambda: os.preadv(file, [bytearray(100)], 0, os.RWF_NOWAIT),
    "preadv2 polled": lambda: os.preadv(file, [bytearray(100)], 0, os.RWF_HIPRI),
    "O_PATH": lambda: os.fstat(os.open(path, os.O_PATH)).st_size == size,
    "O_NOATIME": lambda: os.open(path, os.O_RDONLY | os.O_NOATIME) > 0,
    "O_DIRECTORY": lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY),
    "through /proc": lambda: os.pread(os.open(f"/proc/self/fd/{file}", os.O_RDONLY), 10, 0).hex(),
    "its name in /proc": lambda: os.readlink(f"/proc/self/fd/{file}") == path,
    "map, populated": lambda: mapping(mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ),
    "map, shared and writable": lambda: mapping(mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    "map, private and writable": lambda: mapping(mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE),
    "inotify": lambda: libc.inotify_add_watch(libc.inotify_init(), path.encode(), 0xFFF) > 0,
    "longest name": lambda: os.pathconf(path, "PC_NAME_MAX"),
    "links of a file": lambda: os.stat(path).st_nlink,
    "blocks": lambda: abs(os.stat(path).st_blocks * 512 - size) < 1 << 16,
}
calls |= {
    f"fadvise {name}": lambda name=name: os.posix_fadvise(file, 0, 0, getattr(os, f"POSIX_FADV_{name}"))
    for name in ("NORMAL", "SEQUENTIAL", "RANDOM", "NOREUSE", "WILLNEED", "DONTNEED")
}
calls |= {
    f"madvise {name}": lambda name=name: mapped.madvise(getattr(mmap, f"MADV_{name}"))
    for name in ("NORMAL", "SEQUENTIAL", "RANDOM", "WILLNEED", "DONTNEED", "HUGEPAGE", "DONTDUMP")
}


def outcome(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


print(json.dumps({name: outcome(call) for name, call in calls.items()}))
"""

DIFFERENT = {"copy_file_range": "EXDEV", "preadv2 without waiting": "ENOTSUP", "FS_IOC_GETFLAGS": "ENOTTY"}
"""What the kernel answers for every FUSE file system."""


def outcomes(path, out):
    done = subprocess.run([sys.executable, "-c", CALLS, path, out], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_system_calls_of_libraries_answer_as_on_a_local_disk(sample, home, tmp_path, driver):
    for name in ("large.bin", "model.bin"):
        local = tmp_path / name
        local.write_bytes(sample.files[name])
        local.chmod(0o444)
        with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver) as data:
            mounted = outcomes(data / name, tmp_path / "out")
        expected = outcomes(local, tmp_path / "out") | {name: mounted[name] for name in DIFFERENT}
        assert mounted == expected
        assert {name: mounted[name] for name in DIFFERENT} == DIFFERENT
