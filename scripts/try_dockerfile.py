"""Build the Dockerfile without a container engine, in bare Debian roots, and run the image as compose would.

Run by try-dockerfile.sh, as root, in a mount namespace of its own: whatever is mounted here ends with it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from try_image import try_image

ROOT = Path(__file__).parents[1]
COPIED = ("/etc/resolv.conf", "/etc/hosts")
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "fuse": (10, 229)}
CERTIFICATES = "/run/build-certificates.crt"
"""In the root, for RUN: this machine's bundle may have an authority that Debian's own package does not have."""
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
BUILD_VARIABLES = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass
class Stage:
    """A root file system in the making; `environment`, `user` and `directory` as ENV, USER and WORKDIR left them."""

    root: Path
    name: str
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    user: str = "0:0"
    directory: str = "/"
    words: dict[str, list[str]] = field(default_factory=dict)

    def command(self, *words: str, capabilities: Sequence[str] | None = None) -> list[str]:
        """Give what runs `words` in this root, as its user; `capabilities` is the bounding set, None leaves all."""
        uid, _, gid = self.user.partition(":")
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        if capabilities is not None:
            keep = "".join(f",+{name.lower()}" for name in capabilities)
            drop += [f"--bounding-set=-all{keep}", "--inh-caps=-all"]
        pairs = [f"{name}={value}" for name, value in self.environment.items()]
        return ["chroot", str(self.root), *drop, "env", "-i", f"--chdir={self.directory}", *pairs, *words]

    def run(self, *words: str, **also: str) -> None:
        borrowed = {name: value for name, value in os.environ.items() if name.startswith(BUILD_VARIABLES)}
        borrowed |= dict.fromkeys(CERTIFICATE_VARIABLES, CERTIFICATES)
        build = Stage(self.root, self.name, {**self.environment, **borrowed, **also}, self.user, self.directory)
        subprocess.run(build.command(*words), check=True, stdin=subprocess.DEVNULL, timeout=900)


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into (instruction, arguments); hadolint has judged its syntax before."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = (line.strip().partition(" ") for line in joined.splitlines())
    return [(word.upper(), rest.strip()) for word, _, rest in split]


def mirror() -> str:
    """Give the archive this machine takes its Debian packages from; "" leaves the choice to debootstrap."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], check=False, capture_output=True, text=True, timeout=60
    )
    return next((site for site in listed.stdout.split() if site.endswith("/debian")), "")


def furnish(root: Path) -> None:
    """Give a root what an engine gives its builds. Nothing in it can write to this machine: files are copied, pip's
    local packages are bound read-only, devices and /proc are its own."""
    subprocess.run(["mount", "-t", "proc", "-o", "ro", "proc", str(root / "proc")], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(root / "dev")], check=True)
    for name, numbers in DEVICES.items():
        os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
        os.chmod(root / "dev" / name, 0o666)  # noqa: S103 -- as on every machine; mknod heeded the umask
    for path in COPIED:
        (root / path.lstrip("/")).unlink(missing_ok=True)  # if it is a link, it must not lead out of the root
        shutil.copyfile(path, root / path.lstrip("/"))
    bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    if bundle:
        shutil.copyfile(bundle, root / CERTIFICATES.lstrip("/"))
    for path in pip_directories():
        target = root / path.lstrip("/")
        target.mkdir(parents=True)
        subprocess.run(["mount", "--bind", path, str(target)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)


def pip_directories() -> list[str]:
    """Give the directories of pip's own configuration and local packages, where this machine has any."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    words = listed.stdout.replace("file://", " ").replace("'", " ").split()
    found = {word for word in (*words, "/etc/xdg/pip") if word.startswith("/") and Path(word).is_dir()}
    return sorted(
        path for path in found if not any(path != other and Path(path).is_relative_to(other) for other in found)
    )


def bare_root(image: str, work: Path, number: int) -> Path:
    """Make the root that an image `debian:SUITE-slim` has, once per suite, and give a copy of it."""
    suite = image.removeprefix("debian:").removesuffix("-slim")
    base = work / suite
    if not base.exists():
        words = ["debootstrap", "--variant=minbase", suite, str(base), mirror()]
        subprocess.run([word for word in words if word], check=True, stdout=subprocess.DEVNULL, timeout=600)
    root = work / f"stage{number}"
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)
    furnish(root)
    return root


def copy(stage: Stage, stages: list[Stage], arguments: str) -> None:
    words = shlex.split(arguments)
    source_root = ROOT
    if words[0].startswith("--from="):
        wanted = words.pop(0).removeprefix("--from=")
        source_root = next(other.root for other in stages if other.name == wanted)
    *sources, target = words
    goal = stage.root / os.path.join(stage.directory, target).lstrip("/")
    for source in sources:
        origin = source_root / source.lstrip("/")
        place = goal / origin.name if target.endswith("/") and origin.is_file() else goal
        place.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(
                origin, place, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy2(origin, place)


def build(text: str, work: Path) -> Stage:
    """Carry out every step of a Dockerfile, and give its last stage."""
    stages: list[Stage] = []
    for word, rest in instructions(text):
        print(f"{word} {' '.join(rest.split())}"[:110], flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stages.append(Stage(bare_root(image, work, len(stages)), name))
        else:
            step(stages[-1], stages, word, rest)
    return stages[-1]


def step(stage: Stage, stages: list[Stage], word: str, rest: str) -> None:
    if word == "RUN":
        stage.run("/bin/sh", "-c", rest, DEBIAN_FRONTEND="noninteractive")
    elif word == "COPY":
        copy(stage, stages, rest)
    elif word == "ENV":
        stage.environment.update(dict(pair.split("=", 1) for pair in shlex.split(rest)))
    elif word == "WORKDIR":
        stage.directory = rest
        (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif word == "USER":
        stage.user = rest
    elif word in {"ENTRYPOINT", "CMD", "HEALTHCHECK"}:
        stage.words[word] = json.loads(rest[rest.index("[") :])
    elif word != "VOLUME":
        raise SystemExit(f"this script does not know {word}")


def main() -> None:
    place = tempfile.mkdtemp(prefix="dagfs-image-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", place], check=True)
    try:
        image = build((ROOT / "Dockerfile").read_text("utf-8"), Path(place))
        size = subprocess.run(["du", "-sxm", image.root], check=True, capture_output=True, text=True, timeout=60)
        print(f"the image's files take {size.stdout.split()[0]} MB")
        try_image(image, Path(place) / "srv")
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", place], check=False)
        os.rmdir(place)  # never a recursive removal: this machine's directories were bound below


if __name__ == "__main__":
    main()
