"""How a worker process takes its post."""

from __future__ import annotations

import ctypes
import os
import signal

from dagfs.kernel.handshake import Feature, Negotiated
from dagfs.supervisor.post import LISTENED, Post, run_worker


def test_a_signal_that_comes_before_the_other_program_listens_waits_for_it_and_takes_no_device_away():
    reading, writing = os.pipe()
    device = os.open("/dev/zero", os.O_RDWR)
    supervisor, pid = os.getpid(), os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, LISTENED)

        def renew(post: Post) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            waits = signal.SIGTERM in signal.sigpending()
            os.write(writing, f"{waits} {os.readlink(f'/proc/self/fd/{post.fd}')}".encode())
            os._exit(0)

        agreed = Negotiated(44, Feature(0), 4096)
        run_worker(Post(device, device, supervisor, agreed), lambda *_: 1, ctypes.CDLL(None), renew)
    os.close(writing)
    os.close(device)
    assert os.read(reading, 100) == b"True /dev/zero"
    os.close(reading)
    assert os.waitpid(pid, 0)[1] == 0
