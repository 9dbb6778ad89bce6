"""Run what the Dockerfile made as deploy/compose.yaml would: a sidecar with few capabilities, PID 1 in its container,
whose mount reaches another one through a shared directory of the host."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

ROOT = Path(__file__).parents[1]
TOKEN = "only-for-this-run"  # noqa: S105 -- a throw-away, told to a server that this script starts
CONTENT = "read through two mount namespaces\n"
TRAINING_UID = 4242
HEALTHY_SECONDS = 60


class Image(Protocol):
    """A root file system with its ENTRYPOINT, CMD and HEALTHCHECK in `words`."""

    root: Path
    user: str
    words: dict[str, list[str]]

    def command(self, *words: str, capabilities: Sequence[str] | None = None) -> list[str]: ...


def try_image(image: Image, shared: Path) -> None:
    """Start the sidecar, wait until it is healthy, read as the training would, and stop it; raises on any surprise."""
    service = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]["dagfs"]
    capabilities = service["cap_add"]
    subprocess.run(image.command(*image.words["ENTRYPOINT"], "--version", capabilities=capabilities), check=True)
    _share(shared, int(image.user.partition(":")[0]))
    _secret(image)
    with _hub(shared.parent / "repository") as url:
        words = [url if word.startswith("${DAGFS_REPO") else word for word in service["command"]]
        main = image.command(*image.words["ENTRYPOINT"], *words, capabilities=capabilities)
        with _container(image, shared, main) as pid:
            _wait_healthy(pid, image.command(*image.words["HEALTHCHECK"], capabilities=capabilities))
            _read_as_training(shared / "data/hello.txt")
            os.kill(pid, signal.SIGTERM)
            _wait_ended(pid, float(str(service["stop_grace_period"]).rstrip("s")))
    if os.path.ismount(shared / "data"):
        raise SystemExit("the mount outlived the container")
    print("mounted as uid", image.user, "with", ", ".join(capabilities) + "; read in another namespace; ended cleanly")


def _share(shared: Path, uid: int) -> None:
    shared.mkdir()
    subprocess.run(["mount", "--bind", str(shared), str(shared)], check=True)
    subprocess.run(["mount", "--make-shared", str(shared)], check=True)
    (shared / "data").mkdir()
    os.chown(shared, uid, uid)
    os.chown(shared / "data", uid, uid)


def _secret(image: Image) -> None:
    secret = image.root / "run/secrets/dagshub_token"
    secret.parent.mkdir(parents=True)
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o400)
    os.chown(secret, *map(int, image.user.split(":")))


@contextlib.contextmanager
def _hub(repository: Path) -> Iterator[str]:
    """Serve a repository of one file on this machine, to those who have the token."""
    repository.mkdir()
    (repository / "hello.txt").write_text(CONTENT)
    git = ["git", "-C", str(repository), "-c", "user.name=demo", "-c", "user.email=demo@localhost"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one file"]):
        subprocess.run([*git, *words], check=True)
    serve = [sys.executable, "-m", "dagfs", "serve", str(repository), "--name", "demo/hello", "--token", TOKEN]
    server = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def _container(image: Image, shared: Path, main: list[str]) -> Iterator[int]:
    """Run `main` as PID 1 of its own PID and mount namespaces, and give its pid out here."""
    script = 'mount --bind "$1" "$2/mnt/dagfs" && mount -t proc proc "$2/proc" && shift 2 && exec "$@"'
    words = ["unshare", "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child"]
    outer = subprocess.Popen([*words, "sh", "-c", script, "sh", str(shared), str(image.root), *main])
    try:
        yield _first_child(outer)
        if outer.wait(10) != 0:
            raise SystemExit(f"the container ended with {outer.returncode}")
    finally:
        outer.kill()
        outer.wait(10)


def _first_child(parent: subprocess.Popen[bytes]) -> int:
    for _ in range(200):
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.05)
    raise SystemExit("the container did not start")


def _wait_healthy(pid: int, check: list[str]) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    done: Any = None
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        enter = ["nsenter", "--target", str(pid), "--mount", "--pid", "--"]
        done = subprocess.run([*enter, *check], check=False, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            print(done.stdout.strip())
            return
        time.sleep(0.5)
    raise SystemExit(f"not healthy: {done and done.stdout + done.stderr}")


def _read_as_training(path: Path) -> None:
    """Read as another user, in a namespace that receives mounts and gives none back, as `rslave` makes it."""
    user = ["setpriv", f"--reuid={TRAINING_UID}", f"--regid={TRAINING_UID}", "--clear-groups"]
    words = ["unshare", "--mount", "--propagation", "slave", *user, "cat", str(path)]
    found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    if found != CONTENT:
        raise SystemExit(f"read {found!r}, not {CONTENT!r}")


def _wait_ended(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            raise SystemExit(f"still running {seconds} s after SIGTERM")
        time.sleep(0.05)
