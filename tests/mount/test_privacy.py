"""A whole run leaves no secret behind, and other users of the machine get what the mount's options say."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest
from support.commands import Home
from support.hubs import hub
from support.users import NOBODY, run_as

from dagfs.devhub.behaviour import Behaviour, Fault, Redirect

SECRET = "0123456789abcdef0123456789abcdef01234567"


def failing(request):
    return Fault(status=403) if request.kind == "raw" and request.path.startswith("images/03") else None


def holding(secret: bytes, root: Path) -> list[Path]:
    """Give the files below `root`, the token's own aside, that have a secret in them."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "token"]
    assert len(files) > 10
    return [path for path in files if secret in path.read_bytes()]


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.skipif(os.geteuid() != 0, reason="looks at the environment of other processes")
def test_a_whole_run_leaves_no_secret_behind(sample, tmp_path, place):
    """With failures, redirects to signed URLs, a killed worker, a warm-up, and every command that prints."""
    said: list[str] = []
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    token.chmod(0o600)
    with hub(sample.path, token=SECRET, behaviour=Behaviour(redirect=Redirect.OTHER), fault=failing) as url:
        home = Home(tmp_path / "home")
        options: list[str | Path] = ["--token-file", token]
        if place == "environment":
            options = []
            home.extra = {"DAGSHUB_USER_TOKEN": SECRET, "DAGSHUB_CLIENT_HOST": url.rsplit("/", 2)[0]}

        def run(*words: str | Path) -> None:
            done = home.run(*words, check=False)
            said.extend((done.stdout, done.stderr))

        (tmp_path / "nowhere").mkdir()
        run("mount", url + "-unknown", tmp_path / "nowhere", *options)
        with home.mounted(url, tmp_path / "data", "--no-prefetch", *options) as data:
            assert (data / "README.md").read_bytes() == sample.files["README.md"]
            with pytest.raises(OSError, match="denied"):
                (data / "images/031.jpg").read_bytes()
            report = home.status()[0]
            for pid in [report["pid"], *report["workers"]]:
                assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
                environment = Path(f"/proc/{pid}/environ")
                assert environment.stat().st_uid == 0
                assert (SECRET.encode() in environment.read_bytes()) == (place == "environment")
            os.kill(report["workers"][0], signal.SIGKILL)
            assert (data / "model.bin").read_bytes() == sample.files["model.bin"]
            run("warm", data / "images")
            for words in (("status",), ("status", "--json"), ("cache", "info"), ("cache", "verify")):
                run(*words)
        run("unmount", tmp_path / "data")
    assert any("images/031.jpg" in text for text in said)
    assert "403" in "".join(path.read_text() for path in (home.root / "state").rglob("*.log"))
    for secret in (SECRET, "signature="):
        assert [text for text in said if secret in text] == []
        assert holding(secret.encode(), tmp_path) == []


def options_of(mountpoint: Path) -> set[str]:
    """Give a mount's options as /proc/self/mountinfo has them: its own, and those of its file system."""
    rows = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    row = next(row for row in rows if row[4] == str(mountpoint))
    return {*row[5].split(","), *row[-1].split(",")}


@pytest.mark.parametrize("shared", [False, True])
def test_the_kernel_is_told_to_keep_others_in_bounds(sample, home, tmp_path, driver, shared):
    options = ["--allow-other"] if shared else []
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--driver", driver, *options) as data:
        found = options_of(data)
        assert {"ro", "nosuid", "nodev", "default_permissions"} <= found
        assert ("allow_other" in found) == shared


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's place, which only root can")
def test_others_may_read_a_shared_mount_and_nothing_else(sample, home, tmp_path):
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root":
            directory.chmod(directory.stat().st_mode | 0o011)
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data", "--allow-other") as data:
        name = data / "README.md"

        def read() -> None:
            assert name.read_bytes() == sample.files["README.md"]
            assert len(os.listdir(data)) > 3

        refused = {
            lambda: os.open(name, os.O_RDWR): errno.EROFS,
            lambda: os.execv(name, ["x"]): errno.EACCES,
            lambda: os.chmod(name, 0o777): errno.EROFS,
            lambda: os.mkdir(data / "new"): errno.EROFS,
            lambda: os.unlink(name): errno.EROFS,
        }
        assert run_as(NOBODY, read) == 0
        assert [run_as(NOBODY, call) for call in refused] == list(refused.values())


def test_nothing_of_a_mount_can_be_read_by_others_on_the_disk(sample, home, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        (data / "images/001.jpg").read_bytes()
        time.sleep(0.5)
        for place in ("cache/dagfs", "state/dagfs/logs", "run/dagfs"):
            assert re.fullmatch(r"0o40700", oct((home.root / place).stat().st_mode)), place
        sockets = [path for path in (home.root / "run/dagfs").iterdir() if path.suffix == ".sock"]
        assert [oct(path.stat().st_mode & 0o777) for path in sockets] == ["0o600"]
        logs = list((home.root / "state/dagfs/logs").iterdir())
        assert {oct(path.stat().st_mode & 0o777) for path in logs} == {"0o600"}
