"""`mount.dagfs`: a line of /etc/fstab is a mount. mount(8), umount(8) and findmnt(8) are the real ones."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.hubs import hub
from support.repos import Truth, sample_repository

from dagfs.cli.fstab import Request, command, parse
from dagfs.errors import UsageError

ROOT = Path(__file__).parents[2]
HELPER = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from dagfs.cli.fstab import main; main()' \"$@\"\n"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may write an fstab")


def options_of(text: str, *more: str) -> list[str]:
    return command(parse(["o/n", "/data", *more, "-o", text]))[5:]


def test_the_options_of_a_line_become_those_of_the_command():
    text = "rw,branch=feature/x,cache_size=20GiB,allow_other,_netdev,nofail,x-systemd.automount,user=me,follow=60"
    assert options_of(text) == ["--branch=feature/x", "--cache-size=20GiB", "--allow-other", "--follow=60"]
    assert command(parse(["o/n", "/data"])) == ["mount", "o/n", "/data", "--source", "o/n"]


def test_every_option_that_the_helper_takes_is_one_of_the_command():
    from dagfs.cli.fstab import FLAGS, VALUES
    from dagfs.cli.mount import mount

    flags = {option.name: option.is_flag for option in mount.params if hasattr(option, "is_flag")}
    assert {name: flags[name] for name in VALUES | FLAGS} == dict.fromkeys(VALUES, False) | dict.fromkeys(FLAGS, True)


def test_every_option_of_the_command_can_be_written_into_fstab_and_stands_in_the_document():
    from dagfs.cli.fstab import FLAGS, VALUES
    from dagfs.cli.mount import mount

    ends_with_who_mounts = {"foreground", "owner"}
    options = {option.name for option in mount.params if option.opts[0].startswith("--")} - ends_with_who_mounts
    assert options - VALUES - FLAGS == set()
    text = (ROOT / "docs/systemd.md").read_text()
    words = [*(f"{name}=" for name in VALUES - {"source"}), *FLAGS]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_a_value_may_have_commas_in_quotes():
    assert options_of('subdir="a,b",ro,token_file=/etc/t') == ["--subdir=a,b", "--token-file=/etc/t"]


def test_words_come_in_any_order_and_switches_together():
    wanted = Request("o/n", "/data", ("ro", "branch=b"), sloppy=True, fake=True, verbose=True)
    assert parse(["-sfnv", "o/n", "/data", "-o", "ro,branch=b"]) == wanted
    assert parse(["-o", "ro", "o/n", "-nv", "-t", "fuse.dagfs", "/data", "-s", "-f", "-obranch=b"]) == wanted


@pytest.mark.parametrize("words", [["o/n"], ["o/n", "/data", "/more"], ["o/n", "/data", "-x"], ["o/n", "/data", "-o"]])
def test_other_words_are_told_how_it_is_called(words):
    with pytest.raises(UsageError, match="usage: mount"):
        parse(words)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("remount,ro", "not remounted: `umount /data`, and mount again"),
        ("brunch=main", "'brunch=main' is not known"),
        ("branch", "'branch' is not known"),
        ("allow_other=yes", "'allow_other=yes' is not known"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(text, line):
    with pytest.raises(UsageError, match=line):
        options_of(text)


def test_who_asks_to_be_sloppy_is_not_told_of_unknown_options():
    assert options_of("brunch=main,branch=b", "-s") == ["--branch=b"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("fstab") / "repo")


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n", token="secret") as running:
        yield running


class Machine:
    """A mount namespace with an fstab of its own, the helper in /sbin, as it is installed, and a fresh home for root:
    mount(8) passes no environment on."""

    def __init__(self, place: Path, fstab: str, helper: str = HELPER) -> None:
        (place / "upper").mkdir()
        (place / "fstab").write_text(fstab)
        for name in ("mount.dagfs", "mount.fuse.dagfs"):
            (place / name).write_text(helper)
            (place / name).chmod(0o755)
        self._set_up = f"""set -e
            mount -t tmpfs tmpfs {place}/upper
            mkdir {place}/upper/u {place}/upper/w
            mount -t overlay overlay -o lowerdir=/usr/sbin,upperdir={place}/upper/u,workdir={place}/upper/w /usr/sbin
            cp {place}/mount.dagfs {place}/mount.fuse.dagfs /sbin/
            mount --bind {place}/fstab /etc/fstab
            mkdir -p ~root/.cache ~root/.local
            mount -t tmpfs -o mode=0700 tmpfs ~root/.cache
            mount -t tmpfs -o mode=0700 tmpfs ~root/.local
        """

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script there; whatever it mounts is gone afterwards, since nobody else holds the namespace."""
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", self._set_up + script]
        return subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=90
        )  # fmt: skip


@pytest.fixture
def fstab(url, tmp_path) -> str:
    (tmp_path / "data").mkdir()
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o600)
    options = f"ro,branch=main,cache_size=1GiB,allow_other,_netdev,nofail,noexec,x-any,token_file={tmp_path}/token"
    return f"{url} {tmp_path}/data dagfs {options} 0 0\n"


def ending(place: Path) -> str:
    """Give what unmounts, waits for the daemon's end, and shows what it has left."""
    return (
        f"umount {place}/data\nn=0\n"
        f"while ls ~root/.local/state/dagfs/run/*.lock >/dev/null 2>&1 && [ $n -lt 200 ]; do"
        " n=$((n+1)); sleep 0.05; done\n"
        f"ls -A ~root/.local/state/dagfs/run\n"
    )


@NEEDS_ROOT
@pytest.mark.mount
@pytest.mark.parametrize("kind", ["dagfs", "fuse.dagfs"])
def test_a_line_of_fstab_is_mounted_seen_and_unmounted_by_the_ordinary_commands(fstab, url, sample, tmp_path, kind):
    machine = Machine(tmp_path, fstab.replace(" dagfs ", f" {kind} "))
    done = machine.run(f"""
        mount {tmp_path}/data
        findmnt -no SOURCE,FSTYPE,OPTIONS {tmp_path}/data
        cat {tmp_path}/data/README.md
        mount -a
        findmnt -no TARGET {tmp_path}/data | wc -l
        mount -o remount,ro {tmp_path}/data || echo "status $?"
        {ending(tmp_path)}""")
    assert done.returncode == 0, done.stdout + done.stderr
    source, shown = done.stdout.split("\n", 1)
    assert source.split()[:2] == [url, "fuse.dagfs"]
    assert {"ro", "nosuid", "nodev", "noexec", "allow_other"} <= set(source.split()[2].split(","))
    assert shown == sample.files["README.md"].decode() + "1\nstatus 1\n"
    assert "not remounted" in done.stderr


@NEEDS_ROOT
@pytest.mark.mount
def test_a_mount_that_fails_says_why_in_mount_s_own_statuses(fstab, tmp_path):
    machine = Machine(tmp_path, fstab.replace("branch=main", "branch=other"))
    (tmp_path / "more").mkdir()
    done = machine.run(f"""
        mount {tmp_path}/data || echo "status $?"
        mount -t dagfs -o brunch=main o/n {tmp_path}/data || echo "status $?"
        mount -t dagfs -f -v -o branch=other o/n {tmp_path}/data && echo "as if"
        """)
    assert done.stdout.splitlines()[:2] == ["status 32", "status 1"]
    assert f"dagfs mount o/n {tmp_path}/data --source o/n --branch=other" in done.stdout
    assert done.stdout.endswith("as if\n")
    assert "no branch" in done.stderr
    assert "'brunch=main' is not known" in done.stderr
