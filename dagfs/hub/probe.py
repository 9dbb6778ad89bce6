"""Finds out how a hub speaks: which of the variants that the API allows it shows. For `dagfs doctor`; few requests."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin

import requests

from dagfs import __version__
from dagfs.errors import DagfsError, ProtocolError
from dagfs.hub import redirects, urls
from dagfs.hub.dvc import is_md5
from dagfs.hub.network import Network
from dagfs.hub.rest import CONNECT_SECONDS, SILENCE_SECONDS, failure
from dagfs.hub.urls import origin
from dagfs.model import Commit, RepoRef

BODY_BYTES = 4 << 20
"""Of an answer are read; a root with more entries is listed by a mount, but not looked at here."""

DIRECTORIES = 3
"""Listed in search of a file to try; most repositories have one in their root."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`body`: at most BODY_BYTES of it. `hops`: the origins that redirects led to. `date`: the hub's clock less ours,
    in seconds; None when it does not tell the time."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    hops: tuple[str, ...] = ()
    date: float | None = None

    @property
    def json(self) -> Any:
        """None for what is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class Variants:
    """What a hub showed; None where there was nothing to see it by. `redirects`: the origins that content came from
    instead of the hub's. `dvc`: the DVC remote gives content by its MD5. `storages`: connected buckets."""

    sizes: bool | None = None
    ranges: bool | None = None
    length: bool | None = None
    etag: bool | None = None
    head: bool | None = None
    redirects: tuple[str, ...] = ()
    dvc: bool | None = None
    storages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sample:
    """Files of the repository to try. Empty where none was found."""

    path: str = ""
    size: int = 0
    md5s: list[str] = field(default_factory=list)
    sized: bool | None = None


class Prober:
    """Asks once, without retries, and tells what came. Raises RemoteError when nothing did."""

    def __init__(self, host: str, token: str | None, network: Network) -> None:
        self._host = host
        self._hub = origin(host)
        self._token = token
        self._proxy = network.proxy(host)
        self._network = network
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = network.ca
        self._session.headers.update({"User-Agent": f"dagfs/{__version__}", "Accept-Encoding": "identity"})

    def close(self) -> None:
        self._session.close()

    def user(self) -> Reply:
        """Ask who the token belongs to."""
        return self.ask(f"{urls.api(self._host)}/user")

    def repository(self, repo: RepoRef) -> Reply:
        return self.ask(urls.repository(repo))

    def variants(self, repo: RepoRef, commit: Commit) -> Variants:
        """Try what a mount makes use of, on a file of the repository."""
        sample = self._sample(repo, commit)
        storages = self.ask(f"{urls.repository(repo)}/storage").json
        names = [f"{one.get('protocol')}:{one.get('name')}" for one in _objects(storages)]
        found = Variants(sizes=sample.sized, dvc=self._dvc(repo, sample.md5s), storages=tuple(names))
        if not sample.path:
            return found
        url = urls.raw(repo, commit.sha, sample.path)
        whole, part, head = self.ask(url), self.ask(url, span="bytes=0-0"), self.ask(url, "HEAD")
        elsewhere = {hop for hop in whole.hops if hop != str(self._hub)}
        return Variants(
            sizes=found.sizes,
            ranges=part.status == 206,
            length="content-length" in whole.headers,
            etag="etag" in whole.headers,
            head=head.status == 200,
            redirects=tuple(sorted(elsewhere or set(whole.hops))),
            dvc=found.dvc,
            storages=found.storages,
        )

    def ask(self, url: str, method: str = "GET", span: str | None = None) -> Reply:
        """Follow redirects as a mount does: the token stays with the hub. Raises RemoteError, AccessDenied."""
        hops: list[str] = []
        for _ in range(redirects.MAX_HOPS + 1):
            reply, target = self._once(url, method, span)
            if target is None:
                return Reply(reply.status, reply.headers, reply.body, tuple(hops), reply.date)
            hops.append(str(redirects.next_hop(url, target, self._hub)))
            url = target
        raise ProtocolError(f"more than {redirects.MAX_HOPS} redirects from {urls.redact(url)}")

    def _once(self, url: str, method: str, span: str | None) -> tuple[Reply, str | None]:
        headers = {"Range": span} if span else {}
        there = origin(url)
        if there == self._hub and self._token:
            headers["Authorization"] = self._authorization(url)
        proxy = self._network.proxy(url)
        options: dict[str, Any] = {"proxies": {there.scheme: proxy} if proxy else {}, "headers": headers}
        limits: dict[str, Any] = {"timeout": (CONNECT_SECONDS, SILENCE_SECONDS), "stream": True}
        try:
            with self._session.request(method, url, allow_redirects=False, **options, **limits) as response:
                named = {name.lower(): value for name, value in response.headers.items()}
                target = urljoin(url, named.get("location", "")) if response.status_code in redirects.STATUSES else None
                return Reply(response.status_code, named, _body(response), (), _clock(named)), target
        except requests.RequestException as error:
            raise failure(error, there, self._proxy) from None

    def _authorization(self, url: str) -> str:
        """Give what the API wants; the DVC remote is asked as DVC asks it."""
        if url.startswith(f"{urls.api(self._host)}/"):
            return f"Bearer {self._token}"
        return "Basic " + base64.b64encode(f"{self._token}:{self._token}".encode()).decode()

    def _sample(self, repo: RepoRef, commit: Commit) -> _Sample:
        """Look for a small file that has bytes, and for files of DVC, in the root and some directories of it."""
        todo, sample = [""], _Sample()
        for _ in range(DIRECTORIES):
            if not todo or (sample.path and sample.md5s):
                break
            entries = _objects(self.ask(urls.content(repo, commit.sha, todo.pop(0), sized=True)).json)
            sample = _better(sample, entries)
            todo += [str(entry.get("path", "")) for entry in entries if entry.get("type") == "dir"]
        return sample

    def _dvc(self, repo: RepoRef, md5s: list[str]) -> bool | None:
        """Ask the DVC remote for files of both layouts; None when the repository has nothing of DVC to ask for."""
        if not md5s:
            return None
        remote = f"{repo.host}/{urls.encode(repo.owner)}/{urls.encode(repo.name)}.dvc"
        layouts = ("files/md5/", "")
        try:
            return any(
                self.ask(f"{remote}/{layout}{md5[:2]}/{md5[2:]}", span="bytes=0-0").status in (200, 206)
                for md5 in md5s[:2]
                for layout in layouts
            )
        except DagfsError:
            return False


def _better(sample: _Sample, entries: list[dict[str, Any]]) -> _Sample:
    files = [entry for entry in entries if entry.get("type") == "file" and isinstance(entry.get("path"), str)]
    sizes = {
        entry["path"]: entry["size"] for entry in files if isinstance(entry.get("size"), int) and entry["size"] > 0
    }
    hashes = [
        str(entry.get("hash", "")) for entry in files if entry.get("versioning") == "dvc" and sizes.get(entry["path"])
    ]
    smallest = min(sizes, key=lambda path: sizes[path], default="")
    path = sample.path or smallest or (files[0]["path"] if files else "")
    sized = sample.sized or (bool(sizes) if files else sample.sized)
    return _Sample(path, sizes.get(path, sample.size), sample.md5s + [md5 for md5 in hashes if is_md5(md5)], sized)


def _objects(document: Any) -> list[dict[str, Any]]:
    return [one for one in document if isinstance(one, dict)] if isinstance(document, list) else []


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(64 << 10):
        body += chunk
        if len(body) >= BODY_BYTES:
            break
    return bytes(body)


def _clock(headers: Mapping[str, str]) -> float | None:
    """Compare the Date header, whose grain is a second, with our clock."""
    try:
        return parsedate_to_datetime(headers.get("date", "")).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
