"""A machine that makes real system calls on a real mount in any order, and compares what it sees with a model."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from support.buckets import bucket
from support.commands import Home
from support.contents import noise
from support.dirs import OpenDirectory
from support.hubs import hub
from support.kinds import POND, aim

from dagfs.devhub.behaviour import Behaviour, Fault

picks = st.integers(0, 9_999)
offsets = st.one_of(st.integers(0, 400_000), st.integers(0, 4_000_000))
lengths = st.sampled_from([0, 1, 100, 4096, 4097, 70_000, 300_000])

OBJECTS = {f"{place}/{i}.bin": noise(i * i * 9_000, i) for place in ("a", "b/c") for i in range(8)}

KILLS_MAX = 2
"""Workers killed in one example: more of them in a minute end the mount, as the supervisor's own tests show."""


def bad_day(request):
    """Every fifth answer for a path is cut, reset, refused or late."""
    if aim(request)[0] not in ("raw", "listing") or request.number % 5:
        return None
    return (Fault(cut_after=700), Fault(reset_after=1), Fault(status=503), Fault(delay=0.05))[len(request.path) % 4]


class MountMachine(RuleBasedStateMachine):
    """Each descriptor, map and open directory is kept with what it was opened with: a machine that changes the commit
    in mid-flight overrides what finds a path, and `model`."""

    sample = None  # set by the test: the repository's Truth
    driver = "kernel"
    options = ("--cache-size", "1MB")

    def __init__(self):
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.root = Path(tempfile.mkdtemp(prefix="dagfs-machine-"))
        self.stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        self.home = Home(self.root / "home")
        self.paths = self.model()
        self.folders = sorted({os.path.dirname(path) for path in self.paths})
        url = self.stack.enter_context(hub(self.sample.path, fault=bad_day, **self.hub_options()))
        options = (*self.options, "--driver", self.driver)
        self.data = self.stack.enter_context(self.home.mounted(url, self.root / "data", *options))
        self.files: list[tuple[int, bytes]] = []  # descriptor, its bytes
        self.maps: list[tuple[mmap.mmap, bytes]] = []
        self.listed: list[tuple[OpenDirectory, list[bytes], dict[int, int]]] = []  # its names, place -> number read
        self.kills = 0

    def hub_options(self):
        """Give what the hub has beside the repository: objects in a bucket."""
        storages = {"s3:pond": bucket(self.root / "pond", OBJECTS)}
        return {"storages": storages, "behaviour": Behaviour(own_bucket=False)}

    def model(self):
        """Give the paths that are asked for."""
        self.truth = dict(self.sample.files) | {f"{POND}/{name}": data for name, data in OBJECTS.items()}
        return sorted(self.truth)

    def open(self, path):
        """Open a file: give the descriptor and its bytes; None when there is none, and rightly."""
        return os.open(self.data / path, os.O_RDONLY), self.truth[path]

    def look_at(self, path):
        """Look a path up, and compare."""
        assert os.lstat(self.data / path).st_size == len(self.truth[path])

    def open_directory(self, folder):
        """Open a directory; None when there is none, and rightly."""
        return OpenDirectory(self.data / folder)

    def names(self, folder, directory, found):
        """Give the names that an open directory has, where `found` were read."""
        return self.children(folder, self.paths, self.sample.submodules)

    def teardown(self):
        for fd, _ in self.files:
            os.close(fd)
        for mapped, _ in self.maps:
            mapped.close()
        for directory, _, _ in self.listed:
            directory.close()
        self.stack.close()

    @rule(pick=picks)
    def open_a_file(self, pick):
        found = self.open(self.pick(pick, self.paths))
        if found is not None:
            self.files.append(found)

    @rule(pick=picks)
    def stat_a_file(self, pick):
        self.look_at(self.pick(pick, self.paths))

    @rule(pick=picks)
    def look_for_what_is_absent(self, pick):
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            os.stat(self.data / self.pick(pick, self.folders) / f"absent {pick}")

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def dup_a_descriptor(self, pick):
        fd, data = self.pick(pick, self.files)
        self.files.append((os.dup(fd), data))

    @precondition(lambda self: self.files)
    @rule(pick=picks)
    def close_a_descriptor(self, pick):
        os.close(self.files.pop(pick % len(self.files))[0])

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths)
    def pread_a_span(self, pick, offset, length):
        fd, data = self.pick(pick, self.files)
        assert os.pread(fd, length, offset) == data[offset : offset + length]

    @precondition(lambda self: self.files)
    @rule(pick=picks, offset=offsets, length=lengths)
    def read_in_a_child(self, pick, offset, length):
        fd, data = self.pick(pick, self.files)
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                os._exit(0 if os.pread(fd, length, offset) == data[offset : offset + length] else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    @precondition(lambda self: self.files)
    @rule(pick=picks, shared=st.booleans())
    def map_a_file(self, pick, shared):
        fd, data = self.pick(pick, self.files)
        if data:
            flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
            self.maps.append((mmap.mmap(fd, 0, flags=flags, prot=mmap.PROT_READ), data))

    @precondition(lambda self: self.maps)
    @rule(pick=picks, offset=offsets, length=lengths)
    def look_into_a_map(self, pick, offset, length):
        mapped, data = self.pick(pick, self.maps)
        assert mapped[offset : offset + length] == data[offset : offset + length]

    @rule(pick=picks)
    def read_a_whole_file(self, pick):
        found = self.open(self.pick(pick, self.paths))
        if found is not None:
            with os.fdopen(found[0], "rb") as file:
                assert file.read() == found[1]

    @rule(pick=picks)
    def open_a_directory(self, pick):
        folder = self.pick(pick, self.folders)
        directory = self.open_directory(folder)
        if directory is None:
            return
        found = []
        while (name := directory.next()) is not None:
            found.append(name)
        wanted = {os.fsencode(name) for name in self.names(folder, directory, found)}
        assert sorted(found) == sorted({b".", b".."} | wanted)
        directory.rewind()
        self.listed.append((directory, found, {directory.tell(): 0}))

    @precondition(lambda self: self.listed)
    @rule(pick=picks, where=picks, count=st.integers(1, 30))
    def read_a_directory_from_a_place(self, pick, where, count):
        directory, wanted, places = self.pick(pick, self.listed)
        place = self.pick(where, sorted(places))
        directory.seek(place)
        start = places[place]
        for number in range(start, start + count):
            assert directory.next() == (wanted[number] if number < len(wanted) else None)
            if number >= len(wanted):
                break
            places[directory.tell()] = number + 1

    @rule(pick=picks)
    def have_the_kernel_forget(self, pick):
        found = self.open(self.pick(pick, self.paths))
        if found is not None:
            os.posix_fadvise(found[0], 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(found[0])

    @precondition(lambda self: self.driver == "kernel" and self.kills < KILLS_MAX and (self.files or self.maps))
    @rule(really=st.integers(0, 9))
    def kill_the_worker(self, really):
        if really:  # rarely
            return
        self.kills += 1
        self.kill_workers()

    def kill_workers(self):
        for worker in self.home.status()[0]["workers"]:
            os.kill(worker, signal.SIGKILL)
        time.sleep(0.05)

    def pick(self, number, among):
        return among[number % len(among)]

    def children(self, folder, paths, submodules=()):
        prefix = f"{folder}/" if folder else ""
        return {path[len(prefix) :].split("/")[0] for path in (*paths, *submodules) if path.startswith(prefix)}


PROFILE = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)
