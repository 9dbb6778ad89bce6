"""A booted systemd for tests: this machine's own files under a throw-away layer, in namespaces of its own, as root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
BOOT_SECONDS = 60
BOOT = """set -e
mount -t tmpfs tmpfs {place}
mkdir {place}/upper {place}/work {place}/root
R={place}/root
mount -t overlay overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work $R
mount -t proc proc $R/proc
mount -t sysfs -o ro sysfs $R/sys
mount -t cgroup2 cgroup2 $R/sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs $R/dev
mount -t tmpfs -o mode=755 tmpfs $R/run
mkdir $R/dev/shm $R/dev/pts
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "ptmx 5 2" "autofs 10 235" \
            "fuse 10 229"; do
  set -- $node
  mknod -m 666 $R/dev/$1 c $2 $3
done
ln -s /proc/self/fd $R/dev/fd
for unit in systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer timers.target systemd-timesyncd.service; do
  ln -sf /dev/null $R/etc/systemd/system/$unit  # they would empty /tmp, or wait for a network
done
echo 0123456789abcdef0123456789abcdef > $R/etc/machine-id
: > $R/etc/fstab
mkdir $R/before
cd $R
pivot_root . before
mount --make-rshared /
exec chroot . sh -c 'umount -l /before; rmdir /before; exec "$@"' sh \
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=dagfs-test {systemd} --unit=basic.target \
  --log-target=journal --show-status=false
"""


@dataclass(frozen=True)
class Booted:
    """A running machine; `log`: what its systemd has said."""

    pid: int
    log: Path

    def run(self, script: str, *, check: bool = True, timeout: float = 120) -> str:
        """Run a shell script in it as root, and give what it printed."""
        done = self._run(script, timeout)
        if check and done.returncode:
            journal = self._run("journalctl --no-pager -o cat -n 40", timeout).stdout
            raise AssertionError(f"{script}\n{done.stdout}{done.stderr}\n{journal}")
        return done.stdout.strip()

    def _run(self, script: str, timeout: float) -> subprocess.CompletedProcess[str]:
        words = ["nsenter", "--target", str(self.pid), "--all", "--root", "--wd", "sh", "-c", script]
        # in a session of its own: a `kill` of process 0, which is what a dead service has, would reach the tests
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, start_new_session=True)

    def shows(self, unit: str, *names: str) -> list[str]:
        """Give some properties of a unit."""
        told = self.run(f"systemctl show {unit} {' '.join('-p ' + name for name in names)}").splitlines()
        values = dict(line.partition("=")[::2] for line in told)
        return [values[name] for name in names]

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until a script ends well."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):
                self.run(script)
                return
            assert time.monotonic() < deadline, f"{script}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)


@contextlib.contextmanager
def booted(log: Path) -> Iterator[Booted]:
    """Boot, and take everything away afterwards: the first process of a namespace ends all others with it."""
    place = Path(tempfile.mkdtemp(prefix="dagfs-booted-"))
    group = Path(cgroup2()) / place.name
    group.mkdir()
    script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    spaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    words = ["sh", "-c", script, "sh", *spaces, "--cgroup", "--uts", "--ipc", "sh", "-c"]
    with log.open("w") as said:
        outer = subprocess.Popen(
            [*words, BOOT.format(place=place, systemd=SYSTEMD)], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    try:
        machine = Booted(_first_process(outer.pid, log), log)
        machine.until("systemctl is-system-running | grep -E 'running|degraded'", BOOT_SECONDS)
        yield machine
    finally:
        outer.kill()
        outer.wait(10)
        _remove(group)
        place.rmdir()


def cgroup2() -> str:
    """Give where the second version of control groups is mounted."""
    with open("/proc/self/mounts") as table:
        return next(line.split()[1] for line in table if line.split()[2] == "cgroup2")


def _first_process(outer: int, log: Path) -> int:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError):
            pid = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
            if os.readlink(f"/proc/{pid}/exe").endswith("/systemd/systemd"):
                return pid
        time.sleep(0.05)
    raise AssertionError(f"systemd did not start: {log.read_text()}")


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 10
    while group.exists() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        time.sleep(0.05)
