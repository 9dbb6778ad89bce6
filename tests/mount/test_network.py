"""A mount and its network: one line that says what is wrong at the start, and a mount that outlives the rest."""

from __future__ import annotations

import errno
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.hubs import hub
from support.proxy import Proxy
from support.relay import Relay
from support.scripted_hub import CERTIFICATE

from dagfs.errors import HubNotFound, HubNotTrusted, HubUnreachable, ProxyUnreachable

LOST = (errno.EIO, errno.ETIMEDOUT)


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n") as running:
        yield running


def refusal(home, url, tmp_path) -> tuple[int, str]:
    (tmp_path / "m").mkdir(exist_ok=True)
    done = home.run("mount", url, tmp_path / "m", check=False)
    (line,) = done.stderr.strip().splitlines()
    assert home.status() == []
    return done.returncode, line


@pytest.mark.parametrize("name", ["expired", "elsewhere", "localhost"])
def test_a_certificate_that_is_not_one_to_trust(url, home, tmp_path, name):
    """Expired, for another host, and signed by nobody that is trusted."""
    trusted = CERTIFICATE.with_name("elsewhere.pem" if name == "localhost" else f"{name}.pem")
    home.extra["CURL_CA_BUNDLE"] = str(trusted)
    with Relay(url, CERTIFICATE.with_name(f"{name}.pem")) as way:
        status, line = refusal(home, f"{way.url}/o/n", tmp_path)
    assert status == HubNotTrusted.exit_status
    assert "certificate" in line
    assert "SSL_CERT_FILE" in line


def test_a_name_without_address(home, tmp_path):
    status, line = refusal(home, "https://nothing.invalid/o/n", tmp_path)
    assert status == HubNotFound.exit_status
    assert "check the name and the network" in line
    assert not (home.root / "cache").exists() or not list((home.root / "cache").rglob("format"))


def test_a_proxy_that_is_dead_or_wants_a_password(url, home, tmp_path):
    with socket.socket() as unused, Proxy(407) as refusing:
        unused.bind(("127.0.0.1", 0))
        for proxy in (f"http://user:s3cret@127.0.0.1:{unused.getsockname()[1]}", refusing.url):
            home.extra.update(HTTP_PROXY=proxy, NO_PROXY="example.org")
            status, line = refusal(home, url, tmp_path)
            assert status == ProxyUnreachable.exit_status
            assert "NO_PROXY" in line
            assert proxy.rpartition("@")[2].removeprefix("http://") in line or proxy == refusing.url
            assert "s3cret" not in line


@pytest.mark.parametrize("proxy", ["socks5h://u:s3cret@127.0.0.1:9", "u:s3cret@127.0.0.1:9", "http://u:s3/cret@h:1"])
def test_a_proxy_of_another_kind_is_named_as_what_is_wrong(url, home, tmp_path, proxy):
    home.extra.update(ALL_PROXY=proxy, NO_PROXY="example.org")
    status, line = refusal(home, url, tmp_path)
    assert status == ProxyUnreachable.exit_status
    assert "http://HOST:PORT" in line
    assert "cret" not in line + home.run("doctor", "--host", url.rpartition("/o/")[0], check=False).stdout


def test_everything_goes_through_the_proxy_of_the_environment(url, sample, home, tmp_path):
    with Proxy() as proxy:
        home.extra.update(HTTP_PROXY=proxy.url, NO_PROXY="example.org")
        with home.mounted(url, tmp_path / "data") as data:
            assert (data / "images/007.jpg").read_bytes() == sample.files["images/007.jpg"]
        through = len(proxy.asked)
        assert through >= 4  # the repository, its branch, the root, the file
        home.extra.update(NO_PROXY="127.0.0.1")
        with home.mounted(url, tmp_path / "data") as data:
            assert (data / "images/008.jpg").read_bytes() == sample.files["images/008.jpg"]
        assert len(proxy.asked) == through


@pytest.mark.parametrize(("how", "driver"), [("refused", "kernel"), ("silent", "libfuse")])
def test_a_mount_outlives_the_loss_of_its_network(url, sample, home, tmp_path, how, driver):
    """Eight programs read what is there while others wait for what is not; then the network is back."""
    with Relay(url) as way, home.mounted(f"{way.url}/o/n", tmp_path / "data", "--driver", driver) as data:
        home.run("warm", data / "images")
        fresh = data / "odd dvc/-dash"
        os.listdir(fresh.parent)
        if how == "refused":
            way.cut()
        else:
            way.dark = True
            way.swallow()
        taken = way.connections
        with ThreadPoolExecutor(9) as pool:
            waiting = pool.submit(fresh.read_bytes)
            images = [f"images/{number:03d}.jpg" for number in range(1, 40)]
            got = list(pool.map(lambda path: (data / path).read_bytes(), images * 3))
            assert got == [sample.files[path] for path in images] * 3
            assert len(os.listdir(data / "images")) == len(images) + 2
            assert not waiting.done()
            assert way.connections <= taken + 3  # for what nobody has, and nothing else
            way.dark = False
            if how == "refused":
                way.mend()
            else:
                way.cut()
                way.mend()
            assert waiting.result(60) == sample.files["odd dvc/-dash"]
        assert home.status()[0]["generation"] == 1
        assert home.status()[0]["hub"]["state"] == "ok"


def test_status_tells_that_the_hub_does_not_answer(url, home, tmp_path):
    with Relay(url) as way, home.mounted(f"{way.url}/o/n", tmp_path / "data", "--no-prefetch") as data:
        os.listdir(data / "images")
        way.cut()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit((data / "images/001.jpg").read_bytes)
            deadline = time.monotonic() + 20
            while (state := home.status()[0]["hub"])["state"] != "failing":
                assert time.monotonic() < deadline
            assert "127.0.0.1" in state["error"]
            assert "failing for" in home.run("status").stdout
            way.mend()
            waiting.result(60)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_a_hub_that_is_down_for_ten_minutes(url, sample, home, tmp_path):
    """With the deadlines of everyday: a minute for sizes from a listing, two for content; then bytes, without help."""
    with Relay(url) as way, home.mounted(f"{way.url}/o/n", tmp_path / "data", "--no-prefetch") as data:
        (data / "images/001.jpg").read_bytes()
        os.listdir(data / "images")
        way.cut()
        end = time.monotonic() + 600

        def loop(path) -> tuple[list[tuple[int, float]], bytes]:
            failures = []
            while True:
                started = time.monotonic()
                try:
                    return failures, path.read_bytes()
                except OSError as error:
                    failures.append((error.errno, time.monotonic() - started))

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(loop, data / f"images/{number:03d}.jpg") for number in range(2, 10)]
            while time.monotonic() < end:
                assert (data / "images/001.jpg").read_bytes() == sample.files["images/001.jpg"]
                time.sleep(5)
            way.mend()
            for number, reader in enumerate(readers, start=2):
                failures, got = reader.result(60)
                assert got == sample.files[f"images/{number:03d}.jpg"]
                assert 4 <= len(failures) <= 8
                assert all(code in LOST and 45 <= wait <= 130 for code, wait in failures), failures
        assert home.status()[0]["generation"] == 1


def test_a_mount_fails_without_its_hub_and_one_with_offline_does_not(url, sample, home, tmp_path):
    with Relay(url) as way:
        where = f"{way.url}/o/n"
        with home.mounted(where, tmp_path / "m"):
            pass
        way.cut()
        status, line = refusal(home, where, tmp_path)
        assert status == HubUnreachable.exit_status
        assert "--offline would serve" in line
        with home.mounted(where, tmp_path / "m", "--offline"):
            assert home.status()[0]["commit"] == sample.head
