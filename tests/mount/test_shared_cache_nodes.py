"""Several machines at once, each in a network namespace of its own, and one of them is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.commands import Home, asked, served
from support.nodes import network
from support.relay import Relay
from support.repos import Truth, big_directory
from support.s3server import BUCKET, S3Server, s3_server

pytestmark = pytest.mark.integration

FILES = 240
SIZE = 30_000
LARGE = 20_000_000
READER = """
import hashlib, random, sys
root, seed, *names = sys.argv[1], int(sys.argv[2]), *sys.stdin.read().split("\\n")
random.Random(seed).shuffle(names)
for name in names:
    print(name, hashlib.md5(open(f"{root}/{name}", "rb").read()).hexdigest(), flush=True)
"""


@dataclass(frozen=True)
class Cluster:
    """`url`: the hub as the nodes reach it; `hub`: as this side does."""

    url: str
    hub: str
    server: S3Server
    homes: tuple[Home, ...]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return big_directory(tmp_path_factory.mktemp("many") / "repo", FILES, size=SIZE, per_directory=60)


@contextlib.contextmanager
def cluster(truth: Truth, places: Path, count: int) -> Iterator[Cluster]:
    with (
        network(count) as net,
        served(truth.path, "--latency-ms", "10") as hub,
        s3_server(net.address) as server,
        Relay(hub, address=net.address) as relay,
    ):
        homes = (
            Home(places / f"home{i}", extra=server.environment, prefix=prefix) for i, prefix in enumerate(net.prefixes)
        )
        yield Cluster(relay.url + urlsplit(hub).path, hub, server, tuple(homes))


@contextlib.contextmanager
def reading(mountpoint: Path, truth: Truth, seed: int) -> Iterator[subprocess.Popen[str]]:
    """Read all files in an order of the seed's, in a process of its own."""
    command = [sys.executable, "-c", READER, str(mountpoint), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        try:
            reader.stdin.write("\n".join(sorted(truth.dvc[truth.head])))
            reader.stdin.close()
            yield reader
        finally:
            reader.kill()


def digests(reader: subprocess.Popen[str]) -> dict[str, str]:
    return dict(line.split() for line in reader.stdout)


def right(truth: Truth) -> dict[str, str]:
    import hashlib

    return {path: hashlib.md5(truth.files[path]).hexdigest() for path in truth.dvc[truth.head]}


def raw_paths(cluster: Cluster) -> dict[str, int]:
    return {path: n for path, n in asked(cluster.hub)["raw_paths"].items() if path.startswith("data/")}


@pytest.mark.parametrize("seeds", [(1, 1, 1), (1, 2, 3)], ids=["in one order", "each in its own order"])
def test_three_machines_that_begin_at_once_cost_the_hub_one_download(
    tmp_path: Path, many: Truth, seeds: tuple[int, ...]
) -> None:
    with cluster(many, tmp_path, len(seeds)) as nodes, contextlib.ExitStack() as mounts:
        options = ("--shared-cache", f"s3://{BUCKET}/x")
        places = [
            mounts.enter_context(home.mounted(nodes.url, tmp_path / f"m{i}", *options))
            for i, home in enumerate(nodes.homes)
        ]
        readers = [mounts.enter_context(reading(place, many, seed)) for place, seed in zip(places, seeds, strict=True)]
        for reader in readers:
            assert digests(reader) == right(many)
        assert raw_paths(nodes) == dict.fromkeys(right(many), 1)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """One file of 20 MB."""
    return big_directory(tmp_path_factory.mktemp("heavy") / "repo", 1, size=LARGE)


def test_three_machines_that_begin_a_large_file_at_once_cost_the_hub_one_download(tmp_path: Path, heavy: Truth) -> None:
    """But for what a part has beyond the beginning of a stream, and for what is under way when a size is learnt."""
    with cluster(heavy, tmp_path, 3) as nodes, contextlib.ExitStack() as mounts:
        options = ("--shared-cache", f"s3://{BUCKET}/x")
        places = [
            mounts.enter_context(home.mounted(nodes.url, tmp_path / f"m{i}", *options))
            for i, home in enumerate(nodes.homes)
        ]
        readers = [mounts.enter_context(reading(place, heavy, 1)) for place in places]
        for reader in readers:
            assert digests(reader) == right(heavy)
        assert set(raw_paths(nodes)) == set(right(heavy))
        sent = asked(nodes.hub)["bytes"]["raw"]
        _await_tier(nodes, len(right(heavy)))
        deadline = time.monotonic() + 30
        while nodes.server.keys("x/dagfs/"):  # parts, leases
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert sent < 1.25 * LARGE


def test_a_machine_that_is_killed_in_mid_epoch_costs_the_others_a_wait_and_nothing_else(
    tmp_path: Path, many: Truth
) -> None:
    with cluster(many, tmp_path, 4) as nodes, contextlib.ExitStack() as mounts:
        options = ("--shared-cache", f"s3://{BUCKET}/x")
        *homes, late = nodes.homes
        places = [
            mounts.enter_context(home.mounted(nodes.url, tmp_path / f"m{i}", *options)) for i, home in enumerate(homes)
        ]
        readers = [mounts.enter_context(reading(place, many, i)) for i, place in enumerate(places)]
        for _ in range(20):
            readers[0].stdout.readline()
        _kill(homes[0])
        for reader in readers[1:]:
            assert digests(reader) == right(many)
        before = raw_paths(nodes)
        assert before.keys() == right(many).keys()
        assert sum(before.values()) <= FILES + 40  # what the dead one was fetching is fetched again
        assert max(before.values()) <= 3
        _await_tier(nodes)
        with late.mounted(nodes.url, tmp_path / "late", *options) as place, reading(place, many, 9) as reader:
            assert digests(reader) == right(many)
        assert raw_paths(nodes) == before


def _kill(home: Home) -> None:
    """End a machine without a word."""
    (one,) = home.status()
    for pid in (one["pid"], *one["workers"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _await_tier(nodes: Cluster, count: int = FILES) -> None:
    deadline = time.monotonic() + 30
    while len(nodes.server.keys("x/files/")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)
