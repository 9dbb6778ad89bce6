"""What DVC writes into a repository: `.dvc` files, dvc.lock and `.dir` manifests, as frozen values. Pure parsing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dagfs.errors import ProtocolError
from dagfs.hub import plain_yaml

MAX_MANIFEST_BYTES = 256 << 20
"""A `.dir` manifest of two million files."""

MAX_YAML_BYTES = 32 << 20
"""A dvc.lock of a pipeline with 100,000 outputs has about 15 MB; beyond twice that it is not one."""

_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Out:
    """An output that DVC tracks. `path` from the repository's root; `md5` 32 hex digits, without ".dir".

    `size` in bytes and `files` (of a directory) are None when DVC did not write them. `legacy`: written by DVC 2, so
    it lies in the remote under MD5/... and not under files/md5/..., and a text file's MD5 may be that of its LF form.
    `cached` is False for outputs that git holds (`cache: false`).
    """

    path: str
    md5: str
    size: int | None
    files: int | None
    is_dir: bool
    legacy: bool
    cached: bool


class ManifestEntry(msgspec.Struct, frozen=True, gc=False):
    """One file of a directory that DVC tracks; a Struct, as there may be half a million of them."""

    relpath: str
    md5: str


_manifests = msgspec.json.Decoder(list[ManifestEntry])


def parse_dvc_file(text: str | bytes, directory: str) -> list[Out]:
    """Give the outputs of a `.dvc` file that lies in `directory` ("" is the root). Raises ProtocolError.

    Outputs without an MD5 (not yet downloaded imports) and outside of the repository are left out.
    """
    document = _mapping(_load(text), "a .dvc file")
    wdir = _text(document.get("wdir", "."), "wdir")
    return list(_outs(document.get("outs"), posixpath.join(directory, wdir)))


def parse_lock(text: str | bytes, directory: str, pipeline: str | bytes | None = None) -> list[Out]:
    """Give the outputs of a dvc.lock that lies in `directory`. Raises ProtocolError.

    `pipeline` is the dvc.yaml beside it: only there are the stages' `wdir` and `cache: false` written.
    """
    document = _mapping(_load(text), "dvc.lock")
    stages = document.get("stages", {}) if "stages" in document or "schema" in document else document
    plans = _plans(pipeline)
    outs: list[Out] = []
    for name, stage in _mapping(stages or {}, "stages").items():
        plan = plans.get(str(name).partition("@")[0], _Plan())  # foreach and matrix stages are NAME@ITEM
        where = posixpath.join(directory, plan.wdir)
        outs.extend(_outs(_mapping(stage or {}, "a stage").get("outs"), where, plan.uncached))
    return outs


def parse_manifest(data: bytes) -> list[ManifestEntry]:
    """Give the files of a `.dir` manifest (a JSON array). Raises ProtocolError."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise ProtocolError(f"a DVC directory manifest of {len(data)} bytes; {MAX_MANIFEST_BYTES} are the limit")
    try:
        entries = _manifests.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a DVC directory manifest: {error}") from None
    for entry in entries:
        if not is_md5(entry.md5) or not entry.relpath:
            raise ProtocolError(f"a DVC directory manifest has an entry without path or MD5: {entry.relpath!r:.100}")
    return entries


def is_md5(text: str) -> bool:
    """Tell whether a text is an MD5 as DVC writes it: 32 lower-case hex digits."""
    return len(text) == 32 and _HEX.issuperset(text)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What dvc.yaml alone says of a stage."""

    wdir: str = "."
    uncached: frozenset[str] = frozenset()


def _plans(pipeline: str | bytes | None) -> dict[str, _Plan]:
    if pipeline is None:
        return {}
    stages = _mapping(_mapping(_load(pipeline), "dvc.yaml").get("stages") or {}, "stages")
    return {str(name): _plan(stage) for name, stage in stages.items() if isinstance(stage, dict)}


def _plan(stage: Mapping[Any, Any]) -> _Plan:
    stage = stage.get("do", stage)  # the body of a foreach stage
    if not isinstance(stage, dict):
        return _Plan()
    uncached: set[str] = set()
    for field in ("outs", "metrics", "plots"):
        for out in stage.get(field) or ():
            if isinstance(out, dict):
                uncached.update(str(k) for k, v in out.items() if isinstance(v, dict) and v.get("cache") is False)
    wdir = stage.get("wdir", ".")
    return _Plan(wdir if isinstance(wdir, str) else ".", frozenset(uncached))


def _outs(value: object, where: str, uncached: frozenset[str] = frozenset()) -> Iterator[Out]:
    if not isinstance(value, list | None):
        raise ProtocolError("DVC outs that are not a list")
    for item in value or ():
        out = _out(_mapping(item, "an out"), where, uncached)
        if out is not None:
            yield out


def _out(item: Mapping[Any, Any], where: str, uncached: frozenset[str]) -> Out | None:
    name = _text(item.get("path"), "path")
    path = _inside(where, name)
    md5 = item.get("md5")
    if path is None or md5 is None:
        return None
    md5 = _text(md5, "md5").lower()
    digest = md5.removesuffix(".dir")
    if not is_md5(digest):
        raise ProtocolError(f"DVC out {path!r:.200} has a malformed MD5")
    return Out(
        path=path,
        md5=digest,
        size=_count(item.get("size")),
        files=_count(item.get("nfiles")),
        is_dir=digest != md5,
        legacy=item.get("hash") != "md5",
        cached=item.get("cache") is not False and name not in uncached,
    )


def _inside(where: str, name: str) -> str | None:
    """Give a path from the root; None for what lies outside: absolute, a URL, or above the root."""
    if "://" in name or not name:
        return None
    path = posixpath.normpath(posixpath.join("/", where, name)) if not name.startswith("/") else "//"
    climbs = posixpath.normpath(posixpath.join(where or ".", name)).split("/", 1)[0] == ".."
    return None if climbs or path in ("/", "//") else path.lstrip("/")


def _load(text: str | bytes) -> object:
    if len(text) > MAX_YAML_BYTES:
        raise ProtocolError(f"DVC metadata of {len(text)} bytes; {MAX_YAML_BYTES} are the limit")
    try:
        return plain_yaml.load(text)
    except ValueError as error:
        raise ProtocolError(f"DVC metadata cannot be read: {error}") from None


def _mapping(value: object, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} is not a mapping")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"{what} of a DVC out is not a text")
    return value


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
