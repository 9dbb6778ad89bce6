"""Run a pod of a manifest without Kubernetes, as root: python pods.py PLAN.json, in a mount namespace of its own.

Each container has namespaces of its own for mounts and processes, its volumes with their propagation, its user and
capabilities; sidecars start in order, each when the one before is there, and end in reverse. No images and no limits.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Container = dict[str, Any]
POINTS = ("/mnt", "/run", "/volumes")  # empty in a container but for its volumes, which must not come from below them
READ_FILES = "dac_read_search"  # an interpreter may lie in a directory of root's


@dataclass
class Pod:
    """`place` has a directory for each volume; `repo` is mounted instead of the manifest's."""

    spec: dict[str, Any]
    place: Path
    repo: str
    programs: str
    token: str

    def furnish(self) -> None:
        group = self.spec["securityContext"]["fsGroup"]
        for volume in self.spec["volumes"]:
            path = self.place / volume["name"]
            path.mkdir()
            subprocess.run(["mount", "--bind", path, path], check=True)
            subprocess.run(["mount", "--make-shared", path], check=True)
            if "secret" in volume:
                (path / "token").write_text(self.token)
                (path / "token").chmod(volume["secret"]["defaultMode"])
                os.chown(path / "token", 0, group)
            else:
                os.chown(path, 0, group)
                path.chmod(0o2777)

    def command(self, container: Container, words: list[str], enter: int | None = None) -> list[str]:
        """Give what runs `words` in a container: a new one, or that whose first process is `enter`."""
        allowed = container.get("securityContext", {})
        user = allowed.get("runAsUser", 0)
        drop = ["setpriv", f"--reuid={user}", f"--regid={allowed.get('runAsGroup', 0)}"]
        drop += ["--groups", str(self.spec["securityContext"]["fsGroup"])]
        drop += [f"--inh-caps=-all,+{READ_FILES}", f"--ambient-caps=-all,+{READ_FILES}"]
        if not allowed.get("privileged"):
            drop += [f"--bounding-set=-all,+{READ_FILES}", "--no-new-privs"]
        told = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        told["DAGFS_REPO"] = self.repo
        words = [word.replace("$(DAGFS_REPO)", self.repo) for word in words]
        base = {"PATH": f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.place / "home")}
        run = [*drop, "env", "-i", *(f"{name}={value}" for name, value in (base | told).items()), *words]
        if enter is not None:
            return ["nsenter", "--target", str(enter), "--mount", "--pid", "--", *run]
        mounts = container["volumeMounts"]
        slave = all(each.get("mountPropagation") != "Bidirectional" for each in mounts)
        return [
            *("unshare", "--mount", "--propagation", "slave" if slave else "unchanged"),
            *("--pid", "--fork", "--kill-child", "sh", "-c", self._script(container, mounts), "sh", *run),
        ]

    def _script(self, container: Container, mounts: list[dict[str, Any]]) -> str:
        allowed = container.get("securityContext", {})
        lines = ["set -e", *(f"mount -t tmpfs tmpfs {path}" for path in POINTS)]
        for each in mounts:
            path = each["mountPath"]
            lines.append(f"mkdir -p {path}; mount --rbind {self.place}/{each['name']} {path}")
        lines.append("mount -t proc proc /proc")
        if not allowed.get("privileged"):
            lines.append("mount --bind /dev/null /dev/fuse")
        if allowed.get("readOnlyRootFilesystem"):
            lines.append("mount -o remount,bind,ro /")
        return "\n".join([*lines, 'exec "$@"'])

    @contextlib.contextmanager
    def sidecar(self, container: Container) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Start one, wait for its probe, and end it as the kubelet does: preStop, SIGTERM, and what it took."""
        running = [self.start(container)]
        try:
            yield running
            began = time.monotonic()
            self._stop(container, running[-1])
            print(json.dumps({"ended": container["name"], "seconds": time.monotonic() - began}), flush=True)
        finally:
            kill(running[-1])

    def start(self, container: Container) -> subprocess.Popen[bytes]:
        words = container.get("command") or ["dagfs", *container["args"]]
        outer = subprocess.Popen(self.command(container, words))
        probe = container["startupProbe"]
        for _ in range(40):
            if outer.poll() is not None:
                break
            with contextlib.suppress(IndexError):
                check = self.command(container, probe["exec"]["command"], enter=first_process(outer.pid))
                if subprocess.run(check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                    return outer
            time.sleep(0.2)
        kill(outer)
        raise SystemExit(f"{container['name']} did not start")

    def _stop(self, container: Container, outer: subprocess.Popen[bytes]) -> None:
        pid = first_process(outer.pid)
        if "lifecycle" in container:
            before = container["lifecycle"]["preStop"]["exec"]["command"]
            subprocess.run(self.command(container, before, enter=pid), stdout=subprocess.DEVNULL)  # may end with PID 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)
        if outer.wait(5) != 0:
            raise SystemExit(f"{container['name']} ended with {outer.returncode}")

    def run(self, container: Container, script: str) -> str:
        done = subprocess.run(self.command(container, ["sh", "-c", script]), capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SystemExit(f"{script}: {done.stdout}{done.stderr}")
        return done.stdout


def kill(outer: subprocess.Popen[bytes]) -> None:
    """End a container's first process, and so all of it: --kill-child is forgotten when that changes its user."""
    with contextlib.suppress(IndexError, OSError):
        os.kill(first_process(outer.pid), 9)
    outer.kill()
    outer.wait(10)


def first_process(outer: int) -> int:
    return int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])


def main(plan: dict[str, Any]) -> None:
    pod = Pod(plan["spec"], Path(plan["place"]), plan["repo"], plan["programs"], plan["token"])
    made = [Path(path) for path in POINTS if not Path(path).exists()]
    for path in made:
        path.mkdir()
    try:
        play(pod, plan)
    finally:
        for path in made:
            path.rmdir()


def play(pod: Pod, plan: dict[str, Any]) -> None:
    (pod.place / "home").mkdir()
    (pod.place / "home").chmod(0o777)
    (pod.place / "fuse.conf").write_text("user_allow_other\n")
    subprocess.run(["mount", "--bind", pod.place / "fuse.conf", "/etc/fuse.conf"], check=True)
    pod.furnish()
    training = pod.spec["containers"][0]
    with contextlib.ExitStack() as stack:
        running = {each["name"]: stack.enter_context(pod.sidecar(each)) for each in pod.spec["initContainers"]}
        print(json.dumps({"read": pod.run(training, plan["script"])}), flush=True)
        if plan["kill"]:
            (dagfs,) = (each for each in pod.spec["initContainers"] if each["name"] == "dagfs")
            kill(running["dagfs"][-1])
            running["dagfs"].append(pod.start(dagfs))
            print(json.dumps({"read": pod.run(training, plan["script"])}), flush=True)
    left = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if "fuse.dagfs" in line]
    print(json.dumps({"left": [path for path in left if path.startswith(str(pod.place))]}), flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
