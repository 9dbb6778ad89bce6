"""How a serving process's interpreter and heap are set: for many threads, and for days."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while another waits for it: 5 ms, the default, would be felt by every
stat while a listing is parsed."""

ARENAS = 2
"""Heaps of the C library. By default there are eight a core, and what one thread has freed in its own is of no use to
the others: 100 MB more after some listings of half a million entries."""

LARGE = 1 << 20
"""Bytes from which a piece of memory is given back at once. By default the limit grows to the largest piece that was
ever freed, up to 32 MiB, and what is below it stays."""

PR_SET_DUMPABLE = 4

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def settle_heap() -> None:
    """Set what holds from now on; to be called before there are threads, which take heaps of their own."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's has no such choices
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, LARGE)):
            mallopt(option, value)


def keep_memory_private() -> None:
    """Keep the token, which lies in memory and environment, out of core files and out of other processes' reach.

    A core handler that is a program is called whatever the limit says; what cannot be dumped is not given to it.
    Forked workers inherit both. Only root can trace such a process: `sudo py-spy dump --pid PID`.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)


def settle() -> None:
    """To be called when the rooms are built, before they serve: what there is now is never collected."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
