"""`dagfs demo` as a newcomer types it, ended by itself and by a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support.commands import Home

from dagfs.demo.run import PACKAGES, run
from dagfs.errors import UsageError

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 150
IMAGES = 32


@pytest.fixture
def home(tmp_path: Path, repository: Path) -> Home:
    """A user whose earlier demo has built the repository, and whose temporary files can be counted."""
    shutil.copytree(repository, tmp_path / f"cache/dagfs/demo-{IMAGES}")
    (tmp_path / "tmp").mkdir()
    return Home(tmp_path, {"TMPDIR": str(tmp_path / "tmp")})


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [place for line in lines if (place := line.split(" ")[1]).startswith(str(directory))]


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that work for a demo below `directory`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


def assert_nothing_is_left(home: Home) -> None:
    assert mounts_below(home.root) == []
    assert list((home.root / "tmp").iterdir()) == []
    deadline = time.monotonic() + 10
    while (left := processes_of(home.root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.mark.mount
@pytest.mark.timeout(DEADLINE_SECONDS + 30)
def test_the_demo_trains_on_the_mount_as_on_a_copy_and_leaves_only_its_output(home: Home) -> None:
    output = home.root / "out"
    done = home.run("demo", "--images", IMAGES, "--epochs", 2, "--output", output, timeout=DEADLINE_SECONDS)
    assert "Embeddings and losses of the three trainings are identical." in done.stdout
    words = " ".join(done.stdout.split())
    assert f"first training on the mount: {IMAGES + 1} files (none more than once)" in words
    assert "Fetched by the second one: nothing, not one request." in words
    for place in ("mount", "copy"):
        assert len(json.loads((output / place / "metrics.json").read_text())["epochs"]) == 2
        with Image.open(output / place / "losses.png") as image:
            image.load()
    assert_nothing_is_left(home)


@pytest.mark.mount
@pytest.mark.parametrize(("number", "to_group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_demo_that_is_interrupted_while_mounted_leaves_nothing(home: Home, number: int, to_group: bool) -> None:
    words = [sys.executable, "-m", "dagfs", "demo", "--images", str(IMAGES), "--output", str(home.root / "out")]
    with subprocess.Popen(words, env=home.environment(), stdout=subprocess.PIPE, start_new_session=True) as demo:
        deadline = time.monotonic() + 60
        while not mounts_below(home.root):
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (os.killpg if to_group else os.kill)(demo.pid, number)
        printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 128 + number
    assert printed.decode().splitlines()[-1] == f"ended by {signal.Signals(number).name}"
    assert_nothing_is_left(home)


def test_missing_packages_are_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagfs.demo.run.PACKAGES", (*PACKAGES, "no_such_package"))
    with pytest.raises(UsageError, match=r"needs no_such_package: pip install 'dagfs\[demo\]'"):
        run(images=IMAGES, epochs=1, output=tmp_path)
