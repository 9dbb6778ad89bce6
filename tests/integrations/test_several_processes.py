"""torchrun on mounts: every rank sees the same pictures, and no file is fetched twice.

`TIERS` has what nodes may share. A tier is one entry: the options of `dagfs mount` for it, given a directory that both
nodes can reach, and how often the hub may then be asked for a file by two nodes together.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.commands import Home, asked
from support.hubs import hub

from dagfs.demo.dataset import build_repository

ROOT = Path(__file__).parents[2]
IMAGES = 26
"""21 to train on and 5 to validate with: two ranks cannot divide either."""

TIERS: dict[str, tuple[Callable[[Path], Sequence[str]], int]] = {
    "no shared tier": (lambda directory: (), 2),
    "shared tier": (lambda directory: ("--shared-cache", f"file://{directory}"), 1),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_repository(tmp_path_factory.mktemp("photographs") / "repo", IMAGES)


@pytest.fixture(scope="module")
def alone(photographs, tmp_path_factory) -> dict:
    """What one process on a plain copy comes to."""
    directory = tmp_path_factory.mktemp("alone")
    shutil.copytree(photographs, directory / "copy", ignore=shutil.ignore_patterns(".dvc", ".git"))
    with torchrun(directory / "copy", directory / "out", "--nproc_per_node", "1") as process:
        finish(process)
    return metrics(directory / "out")


@contextlib.contextmanager
def torchrun(data: Path, output: Path, *options: str, workers: str = "0"):
    """Start `torchrun OPTIONS -m training.train`; nothing of it outlives the block."""
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "training.train"]
    words = ["--data", data, "--output", output, "--batch-size", "4", "--workers", workers]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()  # it ends its ranks
        process.communicate(timeout=60)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-4000:]
    return out


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def check(found: dict, alone: dict) -> None:
    assert found["processes"] == 2
    assert found["embeddings_sha256"] == alone["embeddings_sha256"]
    for name in ("train_samples", "valid_samples", "baseline_valid_loss"):
        assert found[name] == alone[name]
    assert found["epochs"][-1]["train_loss"] < found["epochs"][0]["train_loss"]


def images_in(fetched: dict[str, int]) -> dict[str, int]:
    return {path: count for path, count in fetched.items() if path.startswith("images/")}


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ranks_on_one_mount_fetch_each_file_once(photographs, alone, home, tmp_path, workers):
    with hub(photographs, latency=0.005) as url, home.mounted(url, tmp_path / "data") as data:
        asked(url, reset=True)
        with torchrun(data, tmp_path / "out", "--nproc_per_node", "2", workers=workers) as process:
            out = finish(process)
        fetched = asked(url)["raw_paths"]
    assert out.count("validation images on ") == 1  # one rank reports
    check(metrics(tmp_path / "out"), alone)
    assert len(images_in(fetched)) == IMAGES
    assert set(fetched.values()) == {1}


@contextlib.contextmanager
def two_nodes(url: str, tmp_path: Path, *options: str):
    """Mount on two nodes: two users' homes, each with a cache, a daemon and a mount of its own."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(2):
            (tmp_path / f"node{number}").mkdir()
            home = Home(tmp_path / f"node{number}/home")
            nodes.append(stack.enter_context(home.mounted(url, tmp_path / f"node{number}/data", *options)))
        yield nodes


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train_on(nodes: Sequence[Path], output: Path) -> None:
    """Run one rank on each node's mount, together."""
    place = ("--nnodes", "2", "--nproc_per_node", "1", "--master-addr", "127.0.0.1", "--master-port", str(free_port()))
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(torchrun(data, output, *place, "--node-rank", str(number)))
            for number, data in enumerate(nodes)
        ]
        for process in processes:
            finish(process)


@pytest.mark.parametrize("tier", TIERS)
def test_two_nodes_fetch_a_file_as_often_as_what_they_share_allows(photographs, alone, tmp_path, tier):
    options, most = TIERS[tier]
    (tmp_path / "tier").mkdir()
    with hub(photographs, latency=0.005) as url, two_nodes(url, tmp_path, *options(tmp_path / "tier")) as nodes:
        asked(url, reset=True)
        train_on(nodes, tmp_path / "out")
        fetched = asked(url)["raw_paths"]
    check(metrics(tmp_path / "out"), alone)
    assert len(images_in(fetched)) == IMAGES
    assert max(images_in(fetched).values()) <= most  # git's labels.tsv is in no tier


def test_two_nodes_without_guesses_share_the_epoch_so_each_image_is_fetched_by_one(photographs, alone, tmp_path):
    """All embeddings are exchanged after the first epoch; only what pads uneven parts is read on both nodes."""
    with hub(photographs) as url, two_nodes(url, tmp_path, "--no-prefetch") as nodes:
        asked(url, reset=True)
        train_on(nodes, tmp_path / "out")
        fetched = asked(url)["raw_paths"]
    check(metrics(tmp_path / "out"), alone)
    assert fetched.pop("labels.tsv") == 2
    assert sorted(images_in(fetched)) == sorted(fetched)
    padding = 1
    assert IMAGES <= sum(fetched.values()) <= IMAGES + padding
