"""`--follow`: the mount shows one commit of a branch after another, each at once; what is open stays in its own."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import asked
from support.histories import History, history
from support.hubs import hub
from support.repos import git
from support.waiting import until

from dagfs.config import places
from dagfs.daemon.reports import reports
from dagfs.devhub.behaviour import Fault
from dagfs.errors import UsageError

FOLLOW = ("--follow", "1", "--no-prefetch")


@pytest.fixture
def moving(tmp_path) -> History:
    return history(tmp_path / "repo")


def version(data: Path) -> int:
    """Give the version that the mount shows, without opening a file."""
    return next(iter(map(int, os.listdir(data / "v"))))


def report(home) -> dict[str, Any]:
    """Give what `dagfs status --json` prints, without the start of an interpreter."""
    return reports(places(home.environment()))[0]


def shown(home) -> str:
    return str(report(home)["commit"])


def read_all(data: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_a_new_commit_is_shown_all_at_once(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        for number in (1, 2, 3):
            if number > 1:
                assert not (data / f"v/{number}").exists()  # the kernel remembers this
                moving.commit()
                until(lambda: (data / "version").read_bytes() == b"%d\n" % number)  # noqa: B023
            assert read_all(data) == moving.files[number]
            assert os.listdir(data / "v") == [str(number)]
            assert (data / "turns").is_dir() == (number == 2)
            for path in (data, data / "data", data / "data/00.bin", data / "src/m1.py"):
                assert path.stat().st_mtime == 1_700_000_000 + number
                assert os.getxattr(path, "user.dagfs.commit").decode() == moving.shas[number]
            told = report(home)
            assert (told["commit"], told["branch"]) == (moving.shas[number], "main")
        assert home.status()[0]["commit"] == told["commit"]
        state = json.loads(next((home.root / "run/dagfs").glob("*.json")).read_text())
        assert state["commit"] == moving.shas[3]
        assert f"{moving.shas[3]} (main)" in home.run("status").stdout


def test_what_is_open_keeps_its_commit_over_changes_and_a_killed_worker(moving, home, tmp_path):
    """Also what was never read before the change, and what memory and cache have lost since."""
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        names = ("data/00.bin", "src/m0.py", "data/only/in-1.bin", "data/11.bin")
        opened = {name: os.open(data / name, os.O_RDONLY) for name in names}
        folder = os.open(data / "data", os.O_RDONLY)
        mapped = mmap.mmap(opened["data/11.bin"], 0, prot=mmap.PROT_READ)
        for number in range(2, 8):  # more than the commits whose rooms stay in memory
            moving.commit()
            until(lambda: version(data) == number)  # noqa: B023
        old = moving.files[1]
        assert os.pread(opened["data/00.bin"], 1 << 20, 0) == old["data/00.bin"]
        os.kill(report(home)["workers"][0], signal.SIGKILL)
        assert os.pread(opened["src/m0.py"], 1 << 20, 0) == old["src/m0.py"]
        assert os.fstat(opened["data/only/in-1.bin"]).st_size == len(old["data/only/in-1.bin"])
        assert os.pread(opened["data/only/in-1.bin"], 1 << 20, 0) == old["data/only/in-1.bin"]
        assert mapped[:] == old["data/11.bin"]
        assert "only" in os.listdir(folder)
        assert os.listdir(data / "data/only") == ["in-7.bin"]
        assert os.getxattr(opened["data/00.bin"], "user.dagfs.commit").decode() == moving.shas[1]
        assert read_all(data) == moving.files[7]
        mapped.close()
        for fd in (*opened.values(), folder):
            os.close(fd)


READER = """
import hashlib, json, os, random, sys, time
data, table, end, seed = sys.argv[1:5]
known = json.load(open(table))
noise = random.Random(int(seed))
last = reads = 0
seen = set()

def whole(path):
    file = os.open(os.path.join(data, path), os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        parts = []
        while part := os.read(file, noise.choice((1000, 5000, 1 << 17))):
            parts.append(part)
            time.sleep(noise.choice((0, 0, 0, 0.002)))
        content = b"".join(parts)
        assert len(content) == size, (path, len(content), size)
        commit = os.getxattr(file, "user.dagfs.commit").decode()
        return content, commit
    finally:
        os.close(file)

def hear(number):
    global last
    assert number >= last, f"version {number} after {last}"
    last = number
    seen.add(number)

commits = json.load(open(table + ".commits"))
paths = [path for path in known if path.startswith(("data/", "src/", "version"))]
while not os.path.exists(end):
    for path in noise.sample(paths, len(paths)):
        try:
            content, commit = whole(path)
        except FileNotFoundError:
            assert "only/" in path, path
            continue
        reads += 1
        digest = hashlib.sha256(content).hexdigest()
        assert digest in known[path], f"{path}: bytes of no commit"
        number = commits[commit]
        assert path not in ("version",) or content == b"%d\\n" % number
        assert known[path][digest] >= number, (path, known[path][digest], number)
        hear(number)
    rows = os.listdir(os.path.join(data, "v"))
    assert len(rows) == 1, rows
    hear(int(rows[0]))
hear(commits[whole("version")[1]])
print(json.dumps([reads, sorted(seen)]))
"""


def start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def plan_of(moving: History, versions: int, where: Path) -> Path:
    """Make the commits that are to come, take the branch back, and write down what each has for readers."""
    while len(moving.shas) <= versions:
        moving.commit()
    moving.back_to(1)
    table = where / "table"
    table.write_text(json.dumps(moving.digests()))
    (where / "table.commits").write_text(json.dumps({sha: n for n, sha in enumerate(moving.shas) if sha}))
    return table


def results(readers: list[subprocess.Popen[str]]) -> list[tuple[int, list[int]]]:
    found = []
    for reader in readers:
        out, error = reader.communicate(timeout=60)
        assert reader.returncode == 0, error
        found.append(tuple(json.loads(out)))
    return found


@pytest.mark.parametrize("killed", [False, True], ids=["calm", "workers killed"])
def test_eight_readers_never_see_a_commit_mixed_or_go_back(moving, home, tmp_path, killed):
    """Each whole file has the bytes of the commit that its descriptor names, and no later look-up shows an earlier
    commit than one before it."""
    table, end = plan_of(moving, 5, tmp_path), tmp_path / "end"
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        readers = [start(READER, data, table, end, seed) for seed in range(8)]
        try:
            for number in range(2, 6):
                time.sleep(0.3)
                moving.back_to(number)
                if killed:
                    until(lambda: version(data) == number or report(home)["follow"]["next"])  # noqa: B023
                    for worker in report(home)["workers"]:
                        os.kill(worker, signal.SIGKILL)
                until(lambda: version(data) == number)  # noqa: B023
            time.sleep(0.5)
        finally:
            end.touch()
        for reads, seen in results(readers):
            assert reads > 50
            assert seen[-1] == 5
            assert len(seen) >= 3
        if killed:
            assert report(home)["generation"] > 1


EPOCHS = """
import json, os, random, sys, time
data, end, seed = sys.argv[1:4]
noise = random.Random(int(seed))
told = []
while not os.path.exists(end):
    names = []
    for folder in ("data", "src"):
        rows = os.scandir(os.path.join(data, folder))
        names += [row.path for row in rows if row.is_file()]
    epoch = []
    for name in noise.sample(names, len(names)):
        with open(name, "rb") as file:
            file.read(16)  # as OpenCV does, to choose a decoder
            epoch.append(os.getxattr(file.fileno(), "user.dagfs.commit").decode())
        with open(name, "rb") as file:
            epoch.append(os.getxattr(file.fileno(), "user.dagfs.commit").decode())
            file.read()
        time.sleep(0.01)  # a step of the training: no file is open
    told.append(epoch)
print(json.dumps(told))
"""


def test_an_epoch_sees_one_commit_where_open_files_hold_it(moving, home, tmp_path):
    """Epoch after epoch without a pause, and moments without an open file in each: the commit changes between two."""
    end = tmp_path / "end"
    follow = ("--follow", "3", "--hold-while-open")  # a busy machine may stop a reader for a second
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *follow) as data:
        reader = start(EPOCHS, data, end, 1)
        try:
            for number in (2, 3):
                time.sleep(0.3)
                moving.commit()
                until(lambda: shown(home) == moving.shas[number])  # noqa: B023
        finally:
            end.touch()
        out, error = reader.communicate(timeout=60)
        assert reader.returncode == 0, error
        epochs = json.loads(out)
        assert len(epochs) > 4
        assert [len(set(epoch)) for epoch in epochs] == [1] * len(epochs)
        order = [moving.shas.index(epoch[0]) for epoch in epochs]
        assert order == sorted(order)
        assert set(order) == {1, 2, 3}


def test_an_open_file_holds_the_commit_and_status_says_so(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW, "--hold-while-open") as data:
        with (data / "src/kept.py").open("rb") as held:
            moving.commit()
            until(lambda: report(home)["follow"]["why"] not in (None, "being prepared"))
            for _ in range(3):
                assert read_all(data) == moving.files[1]
                time.sleep(0.5)
            told = report(home)
            assert told["commit"] == moving.shas[1]
            assert told["follow"]["next"] == moving.shas[2]
            assert "a file is open" in home.run("status").stdout
            os.kill(told["workers"][0], signal.SIGKILL)
            until(lambda: report(home)["follow"] and report(home)["follow"]["next"])
            assert held.read() == moving.files[1]["src/kept.py"]
            time.sleep(1.5)
            assert version(data) == 1  # the next worker knows of it, too
        until(lambda: version(data) == 2)
        assert read_all(data) == moving.files[2]
        assert report(home)["follow"]["next"] is None


def test_a_program_that_only_polls_is_no_epoch_that_lasts_for_ever(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW, "--hold-while-open") as data:
        assert (data / "version").read_bytes() == b"1\n"
        moving.commit()
        until(lambda: (data / "version").read_bytes() == b"2\n")


def kernel_messages(home) -> dict[str, int]:
    return {k: n for k, n in report(home)["metrics"].items() if k.startswith("kernel.")}


def test_a_change_costs_one_listing_a_directory_and_what_has_changed(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        read_all(data)
        listed = asked(url)["requests"]["listing"]
        asked(url, reset=True)
        moving.commit()
        until(lambda: version(data) == 2)
        counted = asked(url)
        assert counted["requests"].get("raw", 0) == 0
        assert counted["requests"]["listing"] <= listed + 1
        asked(url, reset=True)
        home.run("warm", data / "src")
        assert read_all(data) == moving.files[2]
        counted = asked(url)
        changed = {path for path, body in moving.files[2].items() if moving.files[1].get(path) != body and body}
        assert set(counted["raw_paths"]) == changed
        assert counted["requests"]["raw"] == len(changed)
        assert counted["requests"].get("listing", 0) <= 2  # of what the first commit did not have


def test_polls_are_one_request_each_and_none_where_nothing_is_followed(moving, home, tmp_path):
    with hub(moving.root) as url:
        with home.mounted(url, tmp_path / "pinned"):
            asked(url, reset=True)
            time.sleep(2)
            assert set(asked(url)["requests"]) <= {"own"}  # the test's
        with home.mounted(url, tmp_path / "data", *FOLLOW):
            asked(url, reset=True)
            until(lambda: asked(url)["requests"].get("rest", 0) >= 2)
            assert set(asked(url)["requests"]) <= {"rest", "own"}


@pytest.fixture
def broken(tmp_path) -> Path:
    """What the hub refuses while the file is there: it holds the kinds of requests, and the status."""
    return tmp_path / "broken"


def faulty(broken: Path):
    def fault(request):
        if not broken.exists():
            return None
        kinds, status = broken.read_text().split(":")
        return Fault(status=int(status)) if request.kind in kinds.split() else None

    return fault


@pytest.mark.parametrize("what", ["rest:503", "rest:401", "listing:503"])
def test_a_hub_that_fails_changes_nothing_until_it_answers(moving, home, tmp_path, broken, what):
    with hub(moving.root, fault=faulty(broken)) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        assert read_all(data) == moving.files[1]
        broken.write_text(what)
        moving.commit()
        told, line = ("why", "being prepared") if "listing" in what else ("error", "complaint")
        until(lambda: report(home)["follow"][told])
        assert line in home.run("status").stdout
        assert read_all(data) == moving.files[1]
        assert shown(home) == moving.shas[1]
        broken.unlink()
        until(lambda: version(data) == 2)
        assert read_all(data) == moving.files[2]
        assert report(home)["follow"][told] is None


def test_a_hub_that_is_down_changes_nothing(moving, home, tmp_path):
    with hub(moving.root) as url:
        port = url.split(":")[2].split("/")[0]
        mounted = home.mounted(url, tmp_path / "data", *FOLLOW)
        data = mounted.__enter__()
        everything = read_all(data)
    try:
        until(lambda: report(home)["follow"]["error"])
        assert read_all(data) == everything == moving.files[1]
        moving.commit()
        with hub(moving.root, port=int(port)):
            until(lambda: version(data) == 2)
            assert read_all(data) == moving.files[2]
    finally:
        mounted.__exit__(None, None, None)


def test_a_branch_that_is_deleted_is_complained_of_and_one_that_goes_back_is_followed(moving, home, tmp_path):
    moving.commit()
    git(moving.root, "branch", "other")
    git(moving.root, "checkout", "-q", "other")
    with (
        hub(moving.root) as url,
        home.mounted(url, tmp_path / "data", *FOLLOW, "--branch", "main") as data,
    ):
        git(moving.root, "branch", "-D", "main")
        until(lambda: "main" in (report(home)["follow"]["error"] or ""))
        said = home.run("status").stdout
        assert "complaint" in said  # it was asked for, and is gone
        assert "not asked" not in said
        assert read_all(data) == moving.files[2]
        git(moving.root, "branch", "main", moving.shas[1])
        until(lambda: version(data) == 1)
        assert read_all(data) == moving.files[1]
        git(moving.root, "branch", "-f", "main", moving.shas[2])
        until(lambda: version(data) == 2)
        assert read_all(data) == moving.files[2]


def test_a_directory_that_the_next_commit_does_not_have_is_complained_of(moving, home, tmp_path):
    with (
        hub(moving.root) as url,
        home.mounted(url, tmp_path / "data", *FOLLOW, "--subdir", "data/only") as data,
    ):
        assert os.listdir(data) == ["in-1.bin"]
        (moving.root / "data.dvc").unlink()
        git(moving.root, "commit", "-qam", "data is gone")
        until(lambda: "data/only" in (report(home)["follow"]["error"] or ""))
        assert os.listdir(data) == ["in-1.bin"]
        moving.commit()
        until(lambda: os.listdir(data) == ["in-2.bin"])


def test_a_cache_cleared_under_the_mount_and_a_killed_worker_cost_nobody_his_commit(moving, home, tmp_path):
    with hub(moving.root) as url, home.mounted(url, tmp_path / "data", *FOLLOW) as data:
        read_all(data)
        old = os.open(data / "data/00.bin", os.O_RDONLY)
        moving.commit()
        until(lambda: version(data) == 2)
        home.run("cache", "clear")
        os.kill(report(home)["workers"][0], signal.SIGKILL)
        assert read_all(data) == moving.files[2]
        os.posix_fadvise(old, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(old, 1 << 20, 0) == moving.files[1]["data/00.bin"]
        assert os.getxattr(old, "user.dagfs.commit").decode() == moving.shas[1]
        os.close(old)


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory) -> Iterator[str]:
    made = history(tmp_path_factory.mktemp("rest") / "repo")
    git(made.root, "tag", "v1")
    with hub(made.root, name="o/n") as url:
        yield url


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--follow", "5", "--rev", "v1"), "needs a branch"),
        (("--follow", "0.2"), "--follow"),
        (("--follow", "often"), "--follow"),
        (("--follow", "nan"), "--follow"),
        (("--follow", "inf"), "--follow"),
        (("--follow", "5", "--driver", "libfuse"), "kernel driver"),
        (("--follow", "5", "--offline"), "asks nobody"),
        (("--hold-while-open",), "needs --follow"),
    ],
)
def test_what_cannot_be_followed_is_refused(at_rest, home, tmp_path, words, told):
    done = home.run("mount", at_rest, tmp_path, *words, check=False)
    assert done.returncode == UsageError.exit_status
    assert told in done.stderr


def test_a_tag_after_the_repository_cannot_be_followed(at_rest, home, tmp_path):
    (tmp_path / "m").mkdir()
    done = home.run("mount", f"{at_rest}@v1", tmp_path / "m", "--follow", "5", check=False)
    assert done.returncode == UsageError.exit_status
    assert "v1 is a tag or a commit" in done.stderr
    assert home.status() == []
