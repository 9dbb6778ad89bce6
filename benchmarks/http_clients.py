"""What an HTTP client costs: CPU microseconds of this process for each small file, from one local server.

    .venv/bin/python benchmarks/http_clients.py [--rounds 3] [--files 1000]

Prints a Markdown table of medians: requests (one session, 16 threads) and dagfs's transport over libcurl (16 at once).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=1000)
    options = parser.parse_args()
    figures: dict[str, list[float]] = {"requests": [], "dagfs's transport": []}
    with tempfile.TemporaryDirectory() as name:
        truth = big_directory(Path(name) / "repo", options.files, size=BYTES)
        paths = sorted(truth.dvc[truth.head])
        with hub(truth.path) as url:
            repo, _ = urls.parse_repo(url, "http://unused.invalid")
            for _ in range(options.rounds):
                for client, work in zip(figures, (by_requests, by_transport), strict=True):
                    taken = cpu_microseconds(lambda work=work: work(repo, truth.head, paths), len(paths))
                    figures[client].append(taken)
    print(f"| CPU of a {BYTES // 1000} KB file, {AT_ONCE} at once, median of {options.rounds} | us |\n|---|---|")
    for client, values in figures.items():
        print(f"| {client} | {statistics.median(values):.0f} |")


if __name__ == "__main__":
    main()
