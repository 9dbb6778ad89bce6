"""`dagfs doctor`: each fault is made, found, and told with its remedy."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.hubs import VARIANTS, hub
from support.mounts import ORDINARY
from support.proxy import Proxy
from support.relay import Relay
from support.scripted_hub import CERTIFICATE

from dagfs.daemon.doctor import disk, machine
from dagfs.daemon.doctor.finding import Finding, Level, findings
from dagfs.devhub.api import Api
from dagfs.devhub.behaviour import Fault
from dagfs.kernel.mountinfo import MountPoint

TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n", token=TOKEN) as running:
        yield running


def examined(home, *words, status: int | None = None, prefix: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """Run `dagfs doctor --json`; gives its findings by name, the worst of each."""
    command = [*prefix, sys.executable, "-m", "dagfs", "doctor", *map(str, words), "--json"]
    done = subprocess.run(command, env=home.environment(), capture_output=True, text=True, timeout=90)
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    assert status is None or done.returncode == status
    assert report["ok"] == all(one["level"] != "problem" for one in report["findings"])
    order = ["ok", "note", "warning", "problem"]
    found: dict[str, dict[str, str]] = {}
    for one in sorted(report["findings"], key=lambda one: order.index(one["level"])):
        assert one["remedy"] or one["level"] == "ok", one
        found[one["name"]] = one
    return found


def token_file(tmp_path: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def in_a_namespace(script: str) -> tuple[str, ...]:
    """Words that run a program after `script`, in a mount namespace of its own, as root of it."""
    user = () if os.geteuid() == 0 else ("-r",)
    return ("unshare", *user, "-m", "bash", "-ec", f'{script}\nexec "$@"', "bash")


def as_ordinary(work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run a check as a user who is not root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if ORDINARY is not None:
                os.setgroups([])
                os.setgid(ORDINARY)
                os.setuid(ORDINARY)
            told = [[one.name, one.level.value, one.text, one.remedy] for one in work()]
            os.write(writing, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return [Finding(name, Level(level), text, remedy) for name, level, text, remedy in json.loads(text)]


def test_where_all_is_well_everything_is_looked_at_and_the_status_is_0(url, home, tmp_path):
    (tmp_path / "data").mkdir()
    found = examined(home, url, tmp_path / "data", "--token-file", token_file(tmp_path), status=0)
    wanted = (
        "fuse-device fusermount3 user-allow-other mount kernel kernel-resend cache cache-space cache-disk cache-speed "
        "mounts mountpoint propagation proxy hub clock token repository api-sizes api-ranges api-dvc api-storages"
    )
    assert set(wanted.split()) <= set(found)
    assert "of user" in found["token"]["text"]
    assert "o/n can be read, private" in found["repository"]["text"]
    assert not (home.root / "cache").exists()  # it has looked, and made nothing
    assert list(tmp_path.glob("**/dagfs-doctor*")) == []


def test_the_document_names_every_finding(url, home, tmp_path):
    (tmp_path / "data").mkdir()
    found = set(examined(home, url, tmp_path / "data", "--token-file", token_file(tmp_path)))
    text = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text().partition("| finding |")[2]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)}
    assert named - found <= {"certificates"}  # only told where they are wrong
    assert found - named == set()


def test_people_get_a_line_for_each_finding_with_its_remedy_below(url, home, tmp_path):
    done = home.run("doctor", url, tmp_path / "nothing", "--token-file", token_file(tmp_path), check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("FAIL  mountpoint"))
    assert lines[at + 1].strip().startswith("→ `mkdir -p")


@pytest.mark.skipif(os.geteuid() != 0, reason="the device is taken away in a namespace of root's")
def test_a_missing_device_is_found(home):
    script = (
        "d=$(mktemp -d); mount -t tmpfs none $d; "
        "for n in null zero random urandom; do touch $d/$n; mount --bind /dev/$n $d/$n; done; mount --rbind $d /dev"
    )
    found = examined(home, "--host", "http://127.0.0.1:1", prefix=in_a_namespace(script), status=1)
    assert found["fuse-device"]["level"] == "problem"
    assert "modprobe fuse" in found["fuse-device"]["remedy"]
    assert "dagshub://" in found["fuse-device"]["remedy"]
    assert found["mount"]["level"] == "problem"


@pytest.mark.skipif(os.geteuid() != 0, reason="the device is replaced in a namespace of root's")
def test_something_else_in_the_place_of_the_device_is_found(home):
    found = examined(
        home, "--host", "http://127.0.0.1:1", prefix=in_a_namespace("mount --bind /etc/hostname /dev/fuse"), status=1
    )
    assert "is no device" in found["fuse-device"]["text"]
    assert found["mount"]["level"] == "problem"


@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities are dropped from root's")
def test_a_root_that_may_not_mount_is_found(home):
    found = examined(home, "--host", "http://127.0.0.1:1", prefix=("setpriv", "--bounding-set", "-sys_admin"), status=1)
    assert "CAP_SYS_ADMIN" in found["mount"]["text"]
    assert "--cap-add SYS_ADMIN" in found["mount"]["remedy"]


def test_a_device_that_is_for_root_alone_is_found(device_for_root_alone):
    (found,) = as_ordinary(machine.device)
    assert (found.level, "chmod 666" in found.remedy) == (Level.PROBLEM, True)
    (found,) = as_ordinary(machine.trial)
    assert (found.level, found.remedy) == (Level.PROBLEM, "see what was found above")


def test_an_ordinary_user_tries_to_mount_by_fusermount3(device_for_users):
    found = {one.name: one.level for one in as_ordinary(machine.trial)}
    assert (found["mount"], found["kernel"]) == (Level.OK, Level.OK)


def test_a_missing_fusermount3_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = as_ordinary(machine.helper)
    assert (found.level, found.remedy.startswith("`sudo apt install fuse3`")) == (Level.PROBLEM, True)


def test_a_fusermount3_without_its_privilege_is_found(monkeypatch):
    place = Path("/tmp") / f"dagfs-doctor-test-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        (place / "fusermount3").write_text("#!/bin/sh\n")
        (place / "fusermount3").chmod(0o755)
        monkeypatch.setenv("PATH", str(place))
        (found,) = as_ordinary(machine.helper)
    finally:
        (place / "fusermount3").unlink()
        place.rmdir()
    assert (found.level, "chmod u+s" in found.remedy) == (Level.PROBLEM, True)


def test_that_others_may_not_be_let_in_is_noted(monkeypatch):
    monkeypatch.setattr(machine, "others_allowed", lambda: False)
    (found,) = as_ordinary(machine.others)
    assert (found.level, "user_allow_other" in found.remedy) == (Level.NOTE, True)


def test_a_kernel_without_some_abilities_is_noted_with_the_one_that_has_them(monkeypatch):
    monkeypatch.setattr(machine, "negotiate", lambda _fd, _unwanted: machine.Negotiated(31, machine.Feature(0), 0))
    found = {one.name: one for one in machine.trial()}
    assert "Linux 6.9" in found["kernel-resend"].remedy
    assert "Linux 6.16" in found["kernel-epochs"].remedy


def test_a_cache_that_others_could_have_filled_is_found(tmp_path):
    place = tmp_path / "cache"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    (place / "something").touch()
    (found,) = disk.cache(place)
    assert (found.level, "chmod 700" in found.remedy) == (Level.PROBLEM, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives the directory away")
def test_a_cache_in_a_place_for_everybody_is_what_a_mount_makes_of_it(url, home, tmp_path):
    """As in /tmp: the hub's directory in it is this user's own, and a mount refuses no other."""
    place = tmp_path / "everybody's"
    place.mkdir()
    (place / "other").write_text("x")
    place.chmod(0o1777)
    options = ("--cache-dir", place, "--token-file", token_file(tmp_path))
    assert examined(home, url, *options)["cache"]["level"] == "ok"
    with home.mounted(url, tmp_path / "data", *options) as data:
        assert (data / "README.md").read_bytes()


def test_a_cache_of_another_user_is_found(tmp_path):
    os.chown(tmp_path, 65534, 65534)
    (found,) = disk.cache(tmp_path)
    assert (found.level, "65534" in found.text) == (Level.PROBLEM, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="disks are made in a namespace of root's")
@pytest.mark.parametrize(
    ("options", "fill", "name", "level", "remedy"),
    [
        ("size=100m", "", "cache-space", "warning", "make room"),
        ("size=8m", "head -c 8000000 /dev/zero > $c/fill", "cache-space", "problem", "make room"),
        ("size=3g", "", "cache-disk", "warning", "put it on a disk"),
        ("size=8m", "mount -o remount,ro $c", "cache", "problem", "--cache-dir"),
    ],
    ids=["small", "full", "memory", "read-only"],
)
def test_a_bad_disk_for_the_cache_is_found(home, tmp_path, options, fill, name, level, remedy):
    place = tmp_path / "disk"
    place.mkdir()
    script = f"c={place}; mount -t tmpfs -o {options},mode=700 none $c; {fill}"
    found = examined(home, "--host", "http://127.0.0.1:1", "--cache-dir", place, prefix=in_a_namespace(script))
    assert found[name]["level"] == level, found
    assert remedy in found[name]["remedy"]


def test_a_disk_that_is_slow_to_keep_a_word_is_found(tmp_path):
    found = {one.name: one for one in disk.cache(tmp_path, sync=lambda _fd: time.sleep(0.12))}
    assert found["cache-speed"].level is Level.WARNING


def test_a_cache_on_a_network_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "holder", lambda _path: MountPoint("/", "nfs4", 0))
    found = {one.name: one for one in disk.cache(tmp_path)}
    assert (found["cache-disk"].level, "local disk" in found["cache-disk"].remedy) == (Level.WARNING, True)


@pytest.mark.parametrize(("skew", "level"), [(0, "ok"), (-3600, "warning"), (7200, "warning")])
def test_a_clock_that_is_wrong_is_found(home, skew, level):
    class Late(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def date_time_string(self, timestamp=None):
            return super().date_time_string(time.time() + skew)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Late) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = examined(home, "--host", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert found["clock"]["level"] == level
    if skew:
        assert ("behind" if skew > 0 else "ahead") in found["clock"]["text"]
        assert "timedatectl" in found["clock"]["remedy"]


def test_a_hub_that_cannot_be_reached_is_found_each_in_its_way(home, url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert "check the network" in examined(home, "--host", dead, status=1)["hub"]["remedy"]
    assert "check the name" in examined(home, "--host", "https://nothing.invalid", status=1)["hub"]["remedy"]
    with Relay(url, CERTIFICATE) as way:
        assert "SSL_CERT_FILE" in examined(home, "--host", way.url, status=1)["hub"]["remedy"]
    home.extra["CURL_CA_BUNDLE"] = "/nowhere.pem"
    assert "/nowhere.pem" in examined(home, "--host", dead, status=1)["certificates"]["text"]


def test_a_hub_that_is_down_is_found(home, sample):
    with hub(sample.path, fault=lambda _request: Fault(status=503)) as url:
        found = examined(home, url, status=1)
    assert "HTTP 503" in found["hub"]["text"]


def test_a_proxy_is_told_without_its_password_and_one_that_refuses_is_found(home, url):
    with Proxy() as proxy:
        home.extra.update(HTTP_PROXY=proxy.url.replace("//", "//user:s3cret@"), NO_PROXY="")
        found = examined(home, "--host", url.rpartition("/o/")[0], status=0)
        assert proxy.asked
    assert found["proxy"]["text"] == f"through {proxy.url}"
    assert "s3cret" not in str(found)
    with Proxy(407) as refusing:
        home.extra.update(HTTP_PROXY=refusing.url)
        found = examined(home, "--host", url.rpartition("/o/")[0])
    assert found["hub"]["level"] == "ok"
    assert found["token"]["level"] != "ok"


def test_each_fault_of_a_token_is_found_and_none_is_shown(home, url, tmp_path):
    open_to_all = token_file(tmp_path, mode=0o644)
    found = examined(home, url, "--token-file", open_to_all, status=1)
    assert "chmod 600" in found["token"]["text"] + found["token"]["remedy"]
    wrong = token_file(tmp_path, "f" * 40)
    found = examined(home, url, "--token-file", wrong, status=1)
    assert "settings/tokens" in found["token"]["remedy"]
    assert "f" * 40 not in str(found)
    found = examined(home, url, status=1)
    assert found["token"]["level"] == "note"
    assert found["repository"]["level"] == "problem"
    home.extra["DAGSHUB_USER_TOKEN"] = TOKEN  # of the public hub
    found = examined(home, url, status=1)
    assert "DAGSHUB_CLIENT_HOST=" in found["token"]["text"]
    home.extra["DAGSHUB_CLIENT_HOST"] = url.rpartition("/o/")[0]
    found = examined(home, "o/n", status=0)
    assert "DAGSHUB_USER_TOKEN" in found["token"]["text"]
    assert TOKEN not in str(found)


def test_a_repository_that_the_token_may_not_see_is_found(home, url, tmp_path):
    found = examined(home, url.replace("/o/n", "/o/other"), "--token-file", token_file(tmp_path), status=1)
    assert "o/other" in found["repository"]["text"]
    assert found["repository"]["remedy"]


def noted(found: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, one in found.items() if name.startswith("api-") and one["level"] == "note"}


@pytest.mark.parametrize(
    ("variant", "notes"),
    [
        ("plain", set()),
        ("no ranges", {"api-ranges"}),
        ("chunked, no ranges, no ETag, no HEAD", {"api-ranges", "api-length", "api-etag", "api-head"}),
        ("redirects", set()),
        ("signed URLs of another origin", set()),
    ],
)
def test_how_a_hub_speaks_is_found_out(home, sample, variant, notes):
    with hub(sample.path, behaviour=VARIANTS[variant]) as url:
        found = examined(home, url, status=0)
        host = url.rsplit("/", 2)[0]
    assert noted(found) - {"api-head"} == notes - {"api-head"}
    assert ("api-head" in noted(found)) == ("api-head" in notes) or "signed" in variant
    where = found["api-redirects"]["text"]
    assert {"redirects": host in where, "signed URLs of another origin": host not in where and "http" in where}.get(
        variant, "the hub itself" in where
    )


def test_connected_storages_are_named(home, sample, tmp_path):
    (tmp_path / "bucket").mkdir()
    with hub(sample.path, storages={"s3:pictures": tmp_path / "bucket"}) as url:
        assert "s3:pictures" in examined(home, url)["api-storages"]["text"]


def test_a_mount_whose_daemon_was_killed_is_found_and_the_remedy_works(home, sample, tmp_path):
    with hub(sample.path) as url, home.mounted(url, tmp_path / "data") as data:
        assert told_of(data, home, url) == ["ok"]
        taken = examined(home, url, data, status=1)["mountpoint"]
        assert "dagfs unmount" in taken["remedy"]
        report = home.status()[0]
        for pid in (report["pid"], *report["workers"]):
            os.kill(pid, signal.SIGKILL)
        found = examined(home, url, status=1)["mounts"]
        assert (found["level"], str(data) in found["text"]) == ("problem", True)
        assert found["remedy"].startswith(f"`dagfs unmount {data}`")
        for path in (home.root / "run/dagfs").iterdir():  # the state goes with the login
            path.unlink()
        assert told_of(data, home, url) == ["warning"]
        home.run("unmount", data)
        assert told_of(data, home, url) == []


def told_of(data: Path, home, url: str) -> list[str]:
    """Give the levels of what is found about one mount: other tests have mounts as well."""
    report = json.loads(home.run("doctor", url, "--json").stdout)
    return [one["level"] for one in report["findings"] if one["name"] == "mounts" and str(data) in one["text"]]


@pytest.mark.parametrize("how", ["missing", "full", "file"])
def test_a_place_that_cannot_be_mounted_on_is_found(home, tmp_path, how):
    place = tmp_path / "data"
    if how == "full":
        place.mkdir()
        (place / "x").touch()
    elif how == "file":
        place.touch()
    found = examined(home, "o/n", place, "--host", "http://127.0.0.1:1", status=1)
    assert found["mountpoint"]["level"] == "problem"


@pytest.mark.skipif(os.geteuid() != 0, reason="the propagation is set in a namespace of root's")
@pytest.mark.parametrize(("propagation", "level"), [("rshared", "ok"), ("rprivate", "note"), ("rslave", "note")])
def test_whether_others_will_see_the_mount_is_told(home, propagation, level):
    found = examined(home, "--host", "http://127.0.0.1:1", prefix=in_a_namespace(f"mount --make-{propagation} /"))
    assert found["propagation"]["level"] == level
    if level == "note":
        assert "rshared" in found["propagation"]["remedy"]


def test_a_check_that_fails_itself_is_a_finding_and_the_others_go_on():
    def broken():
        raise ZeroDivisionError("division by zero")

    def refused():
        raise PermissionError(13, "Permission denied", "/x")

    checks = [("one", broken), ("two", refused), ("three", lambda: [Finding("three", Level.OK, "fine")])]
    first, second, third = findings(checks)
    assert (first.name, first.level, "report" in first.remedy) == ("one", Level.PROBLEM, True)
    assert (second.name, second.level, "look again" in second.remedy) == ("two", Level.PROBLEM, True)
    assert third.level is Level.OK


def test_a_token_that_may_more_than_a_mount_needs_is_noted(home, sample, monkeypatch):
    told = Api._describe_repository

    def writable(self):
        return told(self) | {"permissions": {"admin": False, "push": True, "pull": True}}

    monkeypatch.setattr(Api, "_describe_repository", writable)
    with hub(sample.path) as url:
        found = examined(home, url, status=0)["repository"]
    assert (found["level"], "may push, which no mount needs" in found["text"]) == ("note", True)
    assert "may only read" in found["remedy"]


def test_what_looks_like_a_secret_is_cleaned_out_of_every_finding():
    def told():
        yield Finding(
            "x", Level.NOTE, "through http://user:s3cret@host/?token=abc", "ask https://h/x?sig=abcdef\x1b[2J"
        )

    (found,) = findings([("x", told)])
    assert "s3cret" not in found.text
    assert "abcdef" not in found.remedy
    assert "\x1b" not in found.remedy
