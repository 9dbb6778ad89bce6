"""Run a program as in an unprivileged container: python namespaces.py HIDDEN WORDS..., as root.

It sees neither the mount at HIDDEN nor /dev/fuse, and is an ordinary user in a user namespace of its own, without any
capability but to read files, since an interpreter may lie in a directory of root's. Its descriptors stay open.
"""

from __future__ import annotations

import ctypes
import os
import sys

NOBODY = 65534
USERS = 100_000
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 0x1000, 0x4000, 0x40000, 2
DROP = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *("--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search"),
    "--ambient-caps=-all,+dac_read_search",
)


def unprivileged(hidden: object, *words: object) -> list[str]:
    """Give the command that runs `words` so."""
    return [sys.executable, __file__, str(hidden), *map(str, words)]


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _hide(path: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.unshare(CLONE_NEWNS))
    _call(libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    libc.umount2(path.encode(), MNT_DETACH)  # it may be mounted later: private as it is, that is not seen here either
    _call(libc.mount(b"/dev/null", b"/dev/fuse", None, ctypes.c_ulong(MS_BIND), None))


def _become_user_namespace() -> None:
    """A process outside writes the map: only there is it allowed to name users that are not its own."""
    (told, tell), (done, do) = os.pipe(), os.pipe()
    here = os.readlink("/proc/self")  # not getpid: /proc may be of an outer namespace of processes
    if os.fork() == 0:
        os.read(told, 1)
        for kind in ("uid", "gid"):
            with open(f"/proc/{here}/{kind}_map", "w") as table:
                table.write(f"0 0 {USERS}")
        os.write(do, b".")
        os._exit(0)
    os.close(do)
    _call(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER))
    os.write(tell, b".")
    if not os.read(done, 1):
        sys.exit("no user namespace")


if __name__ == "__main__":
    _hide(sys.argv[1])
    _become_user_namespace()
    os.execvp(DROP[0], [*DROP, *sys.argv[2:]])
