"""Any order of real system calls on a mount that follows a branch, while the branch moves to and fro."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test
from support.dirs import OpenDirectory
from support.histories import FIRST_TIME, History, history
from support.machines import PROFILE, MountMachine, picks
from support.waiting import until

VERSIONS = 5
plans = st.lists(
    st.tuples(st.integers(1, VERSIONS), st.booleans(), st.sampled_from([False, False, True])), min_size=2, max_size=12
)
"""Of each move: to which version, whether the one before is waited for, and whether the worker is killed then."""

MISSING = (FileNotFoundError, NotADirectoryError)


class FollowingMachine(MountMachine):
    """The model: `moves` are the versions that the branch was at, in order, and `seen` is how far in them the mount
    is known to be. What a path leads to from the root is of one of `moves[seen:]`, and tells which: so `seen` never
    goes back. What is open is of the version that it was opened in."""

    options = ("--cache-size", "300KB", "--follow", "1")
    moves_max = 6

    def hub_options(self):
        return {}  # a bucket has one version for all commits, and this is about theirs

    def model(self):
        self.sample.back_to(1)
        self.moves = [1]
        self.seen = self.steps = 0
        self.over = False
        self.opened = {}  # directory -> its folder and its version
        return sorted({path for files in self.sample.files for path in files})

    @initialize(period=st.integers(3, 20), plan=plans)
    def plan_the_moves(self, period, plan):
        self.period, self.plan = period, plan[: self.moves_max]
        self.folders += [""] * len(self.folders)  # the root is what changes

    @invariant()
    def the_branch_moves(self):
        """After each `period` steps, and sometimes not before the move before is seen; at last everything is read."""
        self.steps += 1
        if not hasattr(self, "plan") or self.steps % self.period or self.over:
            return
        version, waits, kills = self.plan.pop(0) if self.plan else (None, True, False)
        if waits:
            until(lambda: self.version_shown() == self.moves[-1], f"version {self.moves[-1]}")
            self.seen = len(self.moves) - 1
        if version is None:
            self.over = True
            for path in self.paths:
                self.look_at(path)
            assert self.seen == len(self.moves) - 1
        elif version != self.moves[-1]:
            self.moves.append(version)
            self.sample.back_to(version)
            if kills:
                self.kill_workers()

    @rule()
    def read_which_version_is_shown(self):
        self.must_be_shown(self.version_shown())

    @rule()
    def look_at_the_root(self):
        self.must_be_shown(int(os.stat(self.data).st_mtime) - FIRST_TIME)
        self.must_be_shown(self.sample.shas.index(os.getxattr(self.data, "user.dagfs.commit").decode()))

    @precondition(lambda self: self.below_the_root())
    @rule(pick=picks, other=picks)
    def open_a_file_of_an_open_directory(self, pick, other):
        """It leads into the directory's own commit, whatever the mount shows."""
        directory, folder, version = self.pick(pick, self.below_the_root())
        files = self.sample.files[version]
        name = self.pick(other, sorted(self.children(folder, self.paths)))
        path = f"{folder}/{name}"
        if path in files:
            self.files.append((os.open(name, os.O_RDONLY, dir_fd=directory.fileno()), files[path]))
        elif name not in self.children(folder, files):
            with pytest.raises(FileNotFoundError):
                os.stat(name, dir_fd=directory.fileno())

    @rule(really=st.integers(0, 19))
    def clear_the_cache(self, really):
        if not really:
            self.home.run("cache", "clear")

    def below_the_root(self):
        return [(d, self.opened[d][0], self.opened[d][1]) for d, _, _ in self.listed if self.opened[d][0]]

    def version_shown(self):
        return int(next(iter(os.listdir(self.data / "v"))))

    def must_be_shown(self, version):
        """Note that the mount shows a version now."""
        assert version in self.moves[self.seen :], (version, self.moves, self.seen)
        self.seen = self.moves.index(version, self.seen)

    def must_show_none_of(self, path):
        """Note that the mount shows a version now that does not have this file, or directory."""
        shown = [version for version in self.moves[self.seen :] if not self.has(path, version)]
        assert shown, (path, self.moves, self.seen)
        self.must_be_shown(shown[0])

    def has(self, path, version):
        return any(f"{name}/".startswith(f"{path}/") for name in self.sample.files[version])

    def open(self, path):
        try:
            fd = os.open(self.data / path, os.O_RDONLY)
        except MISSING:
            self.must_show_none_of(path)
            return None
        version = self.sample.shas.index(os.getxattr(fd, "user.dagfs.commit").decode())
        self.must_be_shown(version)
        assert os.fstat(fd).st_mtime == FIRST_TIME + version
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            assert self.has(path, version)
            assert path not in self.sample.files[version]
            return None
        return fd, self.sample.files[version][path]

    def look_at(self, path):
        try:
            found = os.lstat(self.data / path)
        except MISSING:
            self.must_show_none_of(path)
            return
        version = int(found.st_mtime) - FIRST_TIME
        self.must_be_shown(version)
        if stat.S_ISREG(found.st_mode):
            assert found.st_size == len(self.sample.files[version][path])
        else:
            assert path not in self.sample.files[version]

    def open_directory(self, folder):
        try:
            return OpenDirectory(self.data / folder)
        except MISSING:
            shown = [v for v in self.moves[self.seen :] if not self.has(folder, v) or folder in self.sample.files[v]]
            assert shown, (folder, self.moves, self.seen)
            self.must_be_shown(shown[0])
            return None

    def names(self, folder, directory, found):
        if folder:
            version = int(os.fstat(directory.fileno()).st_mtime) - FIRST_TIME
        else:  # the root is the same for all versions, and its listing tells which it is of
            version = int(next(name for name in found if name.startswith(b"at-"))[3:])
        self.must_be_shown(version)
        self.opened[directory] = (folder, version)
        return self.children(folder, self.sample.files[version])


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> History:
    return history(tmp_path_factory.mktemp("moving") / "repo", VERSIONS)


UNSHRUNK = settings(PROFILE, phases=[Phase.generate])
"""A failure is shown as it was found: to make it smaller would take as many waits for the branch as there are tries."""


def machine_on(moving: History, moves_max: int) -> type[FollowingMachine]:
    return type("Machine", (FollowingMachine,), {"sample": moving, "moves_max": moves_max})


def test_any_order_of_system_calls_shows_commits_whole_and_in_order(moving):
    profile = settings(UNSHRUNK, max_examples=2, stateful_step_count=120)
    run_state_machine_as_test(machine_on(moving, 6), settings=profile)


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_any_long_order_of_system_calls_shows_commits_whole_and_in_order(moving):
    profile = settings(UNSHRUNK, max_examples=15, stateful_step_count=500)
    run_state_machine_as_test(machine_on(moving, 12), settings=profile)
