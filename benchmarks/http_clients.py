"""What an HTTP client costs: CPU microseconds of this process for each small file, from one local server.

    .venv/bin/python benchmarks/http_clients.py [--rounds 3] [--files 1000]

Prints a Markdown table of medians: requests (one session, 16 threads) and dagfs's transport over libcurl (16 at once).
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from measuring import medians, workplace
from report import Table, show
from support.hubs import hub
from support.repos import big_directory

from dagfs.errors import DagfsError
from dagfs.hub import urls
from dagfs.hub.api import connect
from dagfs.hub.auth import Token
from dagfs.hub.source import BodyHead
from dagfs.metrics import Metrics
from dagfs.model import Entry, Kind, RepoRef, Versioning

AT_ONCE = 16
BYTES = 16_000


def by_requests(repo: RepoRef, commit: str, paths: list[str]) -> None:
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))

    def get(path: str) -> None:
        assert len(session.get(urls.raw(repo, commit, path), timeout=30).content) == BYTES

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(get, paths))


class Counting:
    """A sink that counts its bytes and frees a place when it is done."""

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self.bytes = 0

    def head(self, head: BodyHead) -> None:
        pass

    def data(self, chunk: bytes) -> None:
        self.bytes += len(chunk)

    def done(self, error: DagfsError | None) -> None:
        self._places.release()


def by_transport(repo: RepoRef, commit: str, paths: list[str]) -> None:
    source = connect(repo, Token("none", None), Metrics(), os.environ)
    pinned = source.resolve(commit)
    places = threading.Semaphore(AT_ONCE)
    sinks = []
    for path in paths:
        places.acquire()
        sinks.append(Counting(places))
        source.open(pinned, Entry(path, Kind.FILE, Versioning.DVC), None, sinks[-1])
    for _ in range(AT_ONCE):
        places.acquire()
    source.close()
    assert {sink.bytes for sink in sinks} == {BYTES}


def cpu_microseconds(work: Callable[[], None], count: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / count * 1e6


def measure(rounds: int = 3, files: int = 1000) -> dict[str, Any]:
    clients = {"requests": by_requests, "dagfs's transport": by_transport}
    found = []
    with workplace() as name:
        truth = big_directory(Path(name) / "repo", files, size=BYTES)
        paths = sorted(truth.dvc[truth.head])
        with hub(truth.path) as url:
            repo, _ = urls.parse_repo(url, "http://unused.invalid")
            for _ in range(rounds):
                found.append(
                    [
                        cpu_microseconds(lambda work=work: work(repo, truth.head, paths), len(paths))
                        for work in clients.values()
                    ]
                )
    what = f"CPU of a {BYTES // 1000} KB file, {AT_ONCE} at once, median of {rounds}"
    return {"rows": dict(zip(clients, medians(found), strict=True)), "what": what}


def tables(figures: dict[str, Any]) -> list[Table]:
    rows = [[client, f"{microseconds:.0f}"] for client, microseconds in figures["rows"].items()]
    return [Table("http-clients", "make bench PARTS=http_clients", [figures["what"], "us"], rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000)
    show(tables(measure(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
