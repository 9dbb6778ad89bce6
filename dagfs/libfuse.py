"""The fallback adapter: the same file system over libfuse, for machines whose kernel is not spoken to directly.

Its limit: libfuse answers a request in the thread that took it, so each miss holds one of its threads until the bytes
have come. Programs that wait for the network can hold back programs that would not have to.
"""

from __future__ import annotations

import ctypes.util
import errno
import importlib
import math
import os
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from dagfs.answers import wait
from dagfs.errors import NoFuse, NotFound
from dagfs.model import Answer, Kind
from dagfs.vfs.errnos import report
from dagfs.vfs.seam import ROOT, Attributes, FileSystem

T = TypeVar("T")

VALID_SECONDS = 10 * 365 * 86400
"""How long the kernel may keep names, absences and attributes: a commit never changes, so longer than any mount."""

NODES_KEPT = 1 << 16
"""Paths whose node is remembered, about 200 bytes each."""

MAX_THREADS = 64
"""Misses that can wait for the network at once. libfuse's own limit is 10 where it has one (3.12)."""

BATCH = 4096  # rows of a listing that are encoded at once

NAME_MAX = 255  # bytes; FUSE alone would allow 1024, which no local disk does

ENCODING = "latin-1"
"""Names are bytes: this encoding maps each byte to one character and back, whatever the name was written in."""

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})

PERMISSIONS = {Kind.DIRECTORY: 0o040555, Kind.FILE: 0o100444, Kind.SYMLINK: 0o120777}


class PathOperations:
    """What libfuse calls, by path. An errno is raised as OSError, which both bindings hand to the kernel.

    Made together with a binding's `Operations`, which refuses everything that is not defined here.
    """

    use_ns = True  # times are integers, in nanoseconds

    def __init__(self, fs: FileSystem, ready: Callable[[], None]) -> None:
        self._fs = fs
        self._ready = ready
        self.served = threading.Event()
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._lock = threading.Lock()
        self._nodes: OrderedDict[bytes, int] = OrderedDict({b"/": ROOT})  # the root is never dropped

    def init(self, _path: str) -> None:
        self.served.set()
        self._ready()

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        return self._stat(self._attributes(path.encode(ENCODING)))

    def readdir(self, path: str, _handle: int) -> Iterator[tuple[str, dict[str, int], int]]:
        node = self._node(path)
        directory = self._ask("readdir", node, lambda: self._fs.readdir(node))
        mode = PERMISSIONS[Kind.DIRECTORY]
        yield ".", {"st_ino": directory.inode, "st_mode": mode}, 0
        yield "..", {"st_ino": directory.parent_inode, "st_mode": mode}, 0
        for start in range(0, len(directory), BATCH):
            for name, inode, kind in directory.rows(start, BATCH):
                yield name.decode(ENCODING), {"st_ino": inode, "st_mode": PERMISSIONS[kind]}, 0

    def read(self, path: str, size: int, offset: int, _handle: int) -> bytes:
        node = self._node(path)
        return self._ask("read", node, lambda: self._fs.read(node, offset, size))

    def readlink(self, path: str) -> str:
        node = self._node(path)
        return self._ask("readlink", node, lambda: self._fs.readlink(node)).decode(ENCODING)

    def statfs(self, _path: str) -> dict[str, int]:
        figures = self._fs.statfs()
        size = {"f_bsize": figures.block_size, "f_frsize": figures.block_size}
        return size | {"f_blocks": figures.blocks, "f_files": figures.files, "f_namemax": figures.name_max}

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        if not name.startswith("user."):
            raise OSError(errno.EOPNOTSUPP, name)
        node = self._node(path)
        value = self._ask("getxattr", node, lambda: self._fs.getxattr(node, name.encode(ENCODING)))
        if value is None:
            raise OSError(errno.ENODATA, name)
        return value

    def listxattr(self, path: str) -> list[str]:
        return [name.decode(ENCODING) for name in self._fs.listxattr(self._node(path))]

    def open(self, _path: str, _flags: int) -> int:
        if sys.platform == "linux":  # takes it for "always succeeds", and asks no more
            raise OSError(errno.ENOSYS, "open")
        return 0

    def flush(self, _path: str, _handle: int) -> int:
        raise OSError(errno.ENOSYS, "flush")

    def _stat(self, attributes: Attributes) -> dict[str, int]:
        seconds = math.floor(attributes.mtime)  # apart, since a float has no room for today in nanoseconds
        time = seconds * 10**9 + int((attributes.mtime - seconds) * 1e9)
        return self._owner | {
            "st_ino": attributes.inode,
            "st_mode": PERMISSIONS[attributes.kind],
            "st_nlink": attributes.links,
            "st_size": attributes.size,
            "st_blocks": (attributes.size + 511) // 512,
            "st_atime": time,
            "st_mtime": time,
            "st_ctime": time,
        }

    def _attributes(self, path: bytes) -> Attributes:
        if path == b"/":
            return self._ask("getattr", ROOT, lambda: self._fs.getattr(ROOT))
        above, _, name = path.rpartition(b"/")
        if len(name) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "name")
        parent = self._node_at(above or b"/")
        attributes = self._ask("lookup", parent, lambda: self._fs.lookup(parent, name))
        with self._lock:
            self._nodes[path] = attributes.node
            while len(self._nodes) > NODES_KEPT:
                self._nodes.popitem(last=False)
            self._nodes[b"/"] = ROOT
        return attributes

    def _node(self, path: str) -> int:
        return self._node_at(path.encode(ENCODING))

    def _node_at(self, path: bytes) -> int:
        with self._lock:
            node = self._nodes.get(path)
        return self._attributes(path).node if node is None else node

    def _ask(self, operation: str, node: int, call: Callable[[], Answer[T]]) -> T:
        try:
            return wait(call())
        except Exception as error:
            if operation == "lookup" and type(error) is NotFound:
                raise OSError(errno.ENOENT, str(error)) from error
            raise OSError(report(self._fs, node, operation, error), str(error)) from error


@dataclass(frozen=True, slots=True)
class Calls:
    """`ready` is called when it serves; `release` when it is told to end: libfuse waits for those of its threads that
    are in the middle of an operation, and this has them come back."""

    ready: Callable[[], None] = lambda: None
    release: Callable[[], None] = lambda: None


def serve(fs: FileSystem, path: str, source: str, *, allow_other: bool = False, calls: Calls | None = None) -> None:
    """Mount on a checked path and serve until unmounted, or told to end by one of ENDING, blocked in all threads.

    Raises NoFuse when libfuse is missing.
    """
    binding, calls = load_binding(), calls or Calls()
    operations = type("Operations", (PathOperations, binding.Operations), {})(fs, calls.ready)
    _end_when_told(operations.served, calls.release)
    options: dict[str, Any] = {
        "foreground": True,
        "ro": True,
        "nosuid": True,
        "nodev": True,
        "noatime": True,
        "default_permissions": True,
        "use_ino": True,
        "kernel_cache": True,
        "allow_other": allow_other,
        "subtype": "dagfs",
        "fsname": os.fsencode(source).decode(ENCODING).replace("\\", "\\\\").replace(",", "\\,"),
        "entry_timeout": VALID_SECONDS,
        "attr_timeout": VALID_SECONDS,
        "negative_timeout": VALID_SECONDS,
    }
    if (getattr(binding, "fuse_version_major", 2), getattr(binding, "fuse_version_minor", 0)) >= (3, 12):
        options["max_threads"] = MAX_THREADS
    try:
        binding.FUSE(operations, os.fsencode(path).decode(ENCODING), encoding=ENCODING, **options)
    except RuntimeError as error:
        if operations.served.is_set():  # libfuse calls it an error as well when a signal has ended it
            return
        raise NoFuse(f"libfuse could not mount on {path} (status {error}); its message is above") from error


def _end_when_told(served: threading.Event, release: Callable[[], None]) -> None:
    """Have a thread wait for one of ENDING and end what this thread is about to serve."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup libfuse would leave it as it is
    serving = threading.get_ident()

    def end() -> None:
        signal.sigwait(ENDING)
        served.wait()
        release()
        signal.pthread_kill(serving, signal.SIGHUP)  # libfuse's own handler; only the thread in its loop is woken

    threading.Thread(target=end, name="ending", daemon=True).start()


def load_binding() -> ModuleType:
    """Import the first binding that finds its library: mfusepy, else fusepy. Raises NoFuse when none does."""
    if sys.platform == "linux" and ctypes.util.find_library("fuse3"):
        os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")  # mfusepy would take libfuse2 where both are installed
    reasons = []
    for name in ("mfusepy", "fuse"):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, AttributeError) as error:
            reasons.append(f"{name}: {error}")
    raise NoFuse(f"no libfuse for --driver libfuse ({'; '.join(reasons)}): `apt install fuse3 libfuse3-3`")
