"""opendir, telldir and seekdir, which Python does not have."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_ulong),
        ("off", ctypes.c_long),
        ("reclen", ctypes.c_ushort),
        ("type", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


_libc.opendir.restype = ctypes.c_void_p
_libc.opendir.argtypes = (ctypes.c_char_p,)
_libc.readdir.restype = ctypes.POINTER(_Dirent)
_libc.readdir.argtypes = (ctypes.c_void_p,)
_libc.telldir.restype = ctypes.c_long
_libc.telldir.argtypes = (ctypes.c_void_p,)
_libc.seekdir.argtypes = (ctypes.c_void_p, ctypes.c_long)
_libc.rewinddir.argtypes = (ctypes.c_void_p,)
_libc.closedir.argtypes = (ctypes.c_void_p,)
_libc.dirfd.argtypes = (ctypes.c_void_p,)


class OpenDirectory:
    """A directory that is read entry by entry, in the order of the file system."""

    def __init__(self, path: Path | str) -> None:
        self._stream = _libc.opendir(os.fsencode(path))
        if not self._stream:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    def next(self) -> bytes | None:
        """Give the next name, "." and ".." included; None at the end."""
        ctypes.set_errno(0)
        found = _libc.readdir(self._stream)
        if found:
            return bytes(found.contents.name)
        if ctypes.get_errno():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return None

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        _libc.seekdir(self._stream, place)

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def fileno(self) -> int:
        return int(_libc.dirfd(self._stream))

    def close(self) -> None:
        _libc.closedir(self._stream)
