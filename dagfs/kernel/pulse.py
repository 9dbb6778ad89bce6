"""Tells from outside whether a dispatcher goes on, where nobody can ask it by a path."""

from __future__ import annotations

import select
import struct
from collections.abc import Callable

from dagfs.memory import shared_memory

_COUNT = struct.Struct("=Q")


class Pulse:
    """Counts a dispatcher's steps in memory that a supervisor shares: odd while a request is in its hands.

    `fd`: that memory, as another program of the same mount has made it; without, it is made.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd, self._memory = shared_memory("dagfs-pulse", _COUNT.size, fd)

    def around(self, serve: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Give a `serve` that counts; one at a time, of the worker that serves now."""
        beats = memoryview(self._memory).cast("Q")
        count = beats[0] + (beats[0] & 1)  # a worker that died may have left a request in its hands
        beats[0] = count

        def counted(message: bytes) -> None:
            nonlocal count
            beats[0] = count + 1
            serve(message)
            count += 2
            beats[0] = count

        return counted

    def notes(self, device: int) -> tuple[int, int]:
        """Give how many requests there were, one that waits in the kernel for the dispatcher among them, and how many
        of these it has done with. One that was read and not counted yet, by a dispatcher that stands still between the
        two, is found when the next comes."""
        (count,) = _COUNT.unpack_from(self._memory)
        waiting = select.poll()
        waiting.register(device, select.POLLIN)
        return (count + 1) // 2 + bool(waiting.poll(0)), count // 2
