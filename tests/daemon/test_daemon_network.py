"""A mount whose network goes and comes back: cached data goes on, misses wait for a deadline, nothing is restarted."""

from __future__ import annotations

import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.hubs import hub
from support.relay import Relay
from support.repos import Truth, sample_repository
from support.rooms import rooms
from support.scripted_hub import CERTIFICATE

from dagfs.devhub.serve import Hub
from dagfs.errors import AccessDenied, RemoteError, RemoteUnavailable, Stalled
from dagfs.hub.auth import RECHECK_SECONDS, find_token
from dagfs.hub.curl import standing

READERS = 8
IMAGES = [f"images/{number:03d}.jpg" for number in range(1, 40)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return sample_repository(tmp_path_factory.mktemp("sample") / "repo")


@pytest.fixture(scope="module")
def url(sample):
    with hub(sample.path, name="o/n") as running:
        yield running


@pytest.fixture
def way(url):
    """The way to the hub, which tests cut."""
    with Relay(url) as relay:
        yield relay


def lose(way: Relay, how: str) -> None:
    if how == "refused":
        way.cut()
    else:
        way.dark = True
        way.swallow()


def fails(found, path: str, kind: type[Exception]) -> Exception:
    with pytest.raises(kind) as raised:
        found.read(path)
    return raised.value


def test_cached_data_goes_on_without_a_request_while_the_network_is_gone(way, sample, tmp_path):
    with rooms(f"{way.url}/o/n", tmp_path) as found:
        found.sized("images")
        for path in IMAGES[:10]:
            found.read(path)
        listed = found.names("images")
        way.cut()
        asked = found.requests()
        with ThreadPoolExecutor(READERS) as pool:
            for _ in range(5):
                assert list(pool.map(found.read, IMAGES[:10])) == [sample.files[path] for path in IMAGES[:10]]
                assert found.names("images") == listed
        assert found.requests() == asked


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_reader_gets_its_bytes_when_the_network_is_back_within_its_deadline(way, sample, tmp_path, how):
    with rooms(f"{way.url}/o/n", tmp_path, patience=20, stall_after=1.0) as found:
        found.sized("images")
        lose(way, how)
        waiting = [found.start_read(path) for path in IMAGES[:READERS]]
        time.sleep(0.6)
        assert not any(promise.done() for promise in waiting)
        if how == "refused":
            way.mend()
        else:
            way.dark = False
        assert [promise.result(20) for promise in waiting] == [sample.files[path] for path in IMAGES[:READERS]]
        assert found.core.hub_state()["state"] == "ok"


@pytest.mark.parametrize(("how", "kind"), [("refused", RemoteUnavailable), ("silent", Stalled)])
def test_a_miss_fails_at_its_deadline_and_the_mount_recovers_by_itself(way, sample, tmp_path, how, kind):
    with rooms(f"{way.url}/o/n", tmp_path, stall_after=0.7) as found:
        found.sized("images")
        lose(way, how)
        assert isinstance(fails(found, IMAGES[0], RemoteError), kind)
        fails(found, "odd git/-dash", RemoteError)
        state = found.core.hub_state()
        assert state["state"] == "failing"
        assert state["error"]
        way.dark = False
        if how == "refused":
            way.mend()
        assert found.read(IMAGES[0]) == sample.files[IMAGES[0]]
        assert found.read("odd git/-dash") == sample.files["odd git/-dash"]
        assert found.core.hub_state() == {"state": "ok", "error": "", "seconds": 0}


def test_a_hub_that_is_down_for_many_deadlines_is_asked_now_and_then_by_eight_readers(way, sample, tmp_path):
    """Each miss waits for its own deadline: a hub that comes back within it is bytes, not an error."""
    deadlines = 4
    with rooms(f"{way.url}/o/n", tmp_path, patience=1.0) as found:
        found.sized("images")
        way.cut()
        asked = found.requests()
        back = threading.Event()
        errors: list[int] = []

        def loop(path: str) -> bytes:
            while True:
                try:
                    return found.read(path)
                except RemoteError:
                    errors.append(1)
                    if len(errors) >= READERS * deadlines:
                        back.set()

        with ThreadPoolExecutor(READERS) as pool:
            readers = [pool.submit(loop, path) for path in IMAGES[:READERS]]
            assert back.wait(30)
            tries = found.requests() - asked
            way.mend()
            assert [reader.result(30) for reader in readers] == [sample.files[path] for path in IMAGES[:READERS]]
        assert tries <= 12 * len(errors)


def test_one_lookup_waits_for_one_deadline_only(way, sample, tmp_path):
    """Where many sizes are looked up, their listing is asked for, and the file itself when that fails."""

    def asked() -> tuple[int, int]:
        figures = found.core.figures()
        return figures.get("tree.listings_sized", 0), figures.get("fetch.loads", 0)

    with rooms(f"{way.url}/o/n", tmp_path, patience=1.0) as found:
        found.names("images")
        for path in IMAGES[:4]:
            found.stat(path)
        listings, loads = asked()
        way.cut()
        with pytest.raises(RemoteError):
            found.stat(IMAGES[4])
        assert asked() == (listings + 1, loads)
        with pytest.raises(RemoteError):
            found.stat(IMAGES[5])
        assert asked() == (listings + 1, loads + 1)
        way.mend()
        assert found.stat(IMAGES[6]) == len(sample.files[IMAGES[6]])


def trusted(root: Path) -> str:
    """Make a bundle that has the certificates of all the tests."""
    found = [path.read_text() for path in CERTIFICATE.parent.glob("*.pem")]
    bundle = root / "bundle.pem"
    bundle.write_text("".join(text[text.index("-----BEGIN CERT") :] for text in found))
    assert len(ssl.create_default_context(cafile=bundle).get_ca_certs()) == len(found)
    return str(bundle)


@pytest.mark.parametrize("bad", ["expired", "elsewhere"])
def test_a_certificate_that_turns_bad_during_the_mount_is_survived(url, sample, tmp_path, monkeypatch, bad):
    monkeypatch.setenv("CURL_CA_BUNDLE", trusted(tmp_path))
    with Relay(url, CERTIFICATE) as way, rooms(f"{way.url}/o/n", tmp_path) as found:
        found.sized("images")
        found.read(IMAGES[0])
        way.cut()
        way.certificate = CERTIFICATE.with_name(f"{bad}.pem")
        way.mend()
        assert found.read(IMAGES[0]) == sample.files[IMAGES[0]]
        error = fails(found, IMAGES[1], RemoteUnavailable)
        assert "certificate" in str(error).lower()
        assert "certificate" in found.core.hub_state()["error"].lower()
        way.cut()
        way.certificate = CERTIFICATE
        way.mend()
        assert found.read(IMAGES[1]) == sample.files[IMAGES[1]]
        assert found.core.hub_state()["state"] == "ok"


@pytest.fixture
def private(sample):
    """A hub in this process, whose token can be exchanged."""
    with Hub(sample.path, "o/n", token="first") as running:
        yield running


def put(path: Path, token: str) -> None:
    """Replace a token file as careful programs do."""
    draft = path.with_suffix(".new")
    draft.write_text(token)
    draft.chmod(0o600)
    draft.replace(path)


def token_of(path: Path, url: str):
    return find_token(path, {}, path.parent / "none", url, time.time())


def refusals(hub: Hub) -> int:
    return hub.requests.summary()["statuses"].get("401", 0)


@pytest.mark.parametrize("pause", [0.0, 1.5], ids=["file first", "hub first"])
def test_a_rotated_token_costs_no_reader_an_error(private, sample, tmp_path, pause):
    """The hub drops the old token before or after the new one lies in the file; eight readers are under way."""
    file = tmp_path / "token"
    put(file, "first")
    unlisted = ["odd dvc/-dash", "deep/a/b/c/d/e/leaf.txt", "legacy/tree/a.bin", "text/crlf.csv"]
    paths = [*IMAGES[:11], *unlisted, *IMAGES[11:]]
    with rooms(private.url, tmp_path, token_of(file, private.url)) as found:
        found.names("images")
        rotated = threading.Event()

        def read(number: int) -> bytes:
            if number == 10:
                private.gate.token = "second"
                time.sleep(pause)
                put(file, "second")
                rotated.set()
            return found.read(paths[number])

        with ThreadPoolExecutor(READERS) as pool:
            got = list(pool.map(read, range(len(paths))))
        assert got == [sample.files[path] for path in paths]
        assert rotated.is_set()
        assert 0 < refusals(private) <= 2 * READERS + 10
        assert found.core.hub_state()["state"] == "ok"


def test_a_revoked_token_is_eacces_at_once_and_the_hub_is_left_alone(private, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "GRACE_SECONDS", 0.5)
    file = tmp_path / "token"
    put(file, "first")
    with rooms(private.url, tmp_path, token_of(file, private.url)) as found:
        found.sized("images")
        assert found.read(IMAGES[0]) == sample.files[IMAGES[0]]
        private.gate.token = "second"
        errors: list[int] = []
        end = time.monotonic() + 3

        def loop(path: str) -> None:
            while time.monotonic() < end:
                with pytest.raises(AccessDenied):
                    found.read(path)
                errors.append(1)

        with ThreadPoolExecutor(READERS) as pool:
            for looping in [pool.submit(loop, path) for path in IMAGES[1 : READERS + 1]]:
                looping.result()
        assert len(errors) >= 2 * READERS
        assert refusals(private) <= 2 * READERS + 6  # those under way, and tries that double their pause from 0.1 s
        assert found.read(IMAGES[0]) == sample.files[IMAGES[0]]
        state = found.core.hub_state()
        assert state["state"] == "token refused"
        assert str(file) in state["error"]
        put(file, "second")
        time.sleep(RECHECK_SECONDS + 0.1)
        assert found.read(IMAGES[1]) == sample.files[IMAGES[1]]
        assert found.core.hub_state()["state"] == "ok"


def test_a_token_of_the_environment_cannot_be_replaced_and_nobody_waits_for_it(private, tmp_path):
    environment = {"DAGSHUB_USER_TOKEN": "first", "DAGSHUB_CLIENT_HOST": private.host}
    token = find_token(None, environment, tmp_path / "none", private.host, time.time())
    with rooms(private.url, tmp_path, token) as found:
        found.sized("images")
        private.gate.token = "second"
        error = fails(found, IMAGES[0], AccessDenied)
        assert error.retry_after is None
        assert "mount again with a new one" in str(error)
        assert "DAGSHUB_USER_TOKEN" in found.core.hub_state()["error"]


def test_a_clock_that_is_stepped_changes_nothing(way, sample, tmp_path, monkeypatch):
    with rooms(f"{way.url}/o/n", tmp_path, patience=20) as found:
        found.sized("images")
        for step in (0.0, 1e9):
            monkeypatch.setattr(time, "time", lambda step=step: step)
            number = int(step > 0)
            way.cut()
            promise = found.start_read(IMAGES[number])
            time.sleep(0.4)
            assert not promise.done()
            way.mend()
            assert promise.result(20) == sample.files[IMAGES[number]]
            assert found.read(IMAGES[number]) == sample.files[IMAGES[number]]
