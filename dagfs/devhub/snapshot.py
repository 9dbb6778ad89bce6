"""One commit as the hub shows it: git's tree with the files that DVC tracks merged into it."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dagfs.devhub.git import GitRepository
from dagfs.devhub.objects import DvcCache, open_file
from dagfs.errors import NotADirectory, NotFound, ProtocolError
from dagfs.hub.dvc import Out, parse_dvc_file, parse_lock, parse_manifest

log = logging.getLogger(__name__)

_DIRECTORY, _SYMLINK, _SUBMODULE = b"040000", b"120000", b"160000"
_PIPELINE = (b"dvc.lock", b"dvc.yaml")

_COMMITS_KEPT = 16
"""Commits in memory: each is about 300 bytes a path, and a client is pinned to one."""


@dataclass(frozen=True, slots=True)
class Node:
    """A path of a commit. `oid` is git's, or the MD5 (with ".dir" for a directory's top, "" below it) when `dvc`."""

    oid: str
    is_dir: bool = False
    dvc: bool = False
    legacy: bool = False
    submodule: bool = False


Directories = dict[bytes, dict[bytes, Node]]
"""Path of a directory -> its children; b"" is the root."""

ROOT = Node("", is_dir=True)


class Snapshots:
    """The commits that are being asked for, each indexed once; thread-safe."""

    def __init__(self, git: GitRepository, cache: DvcCache) -> None:
        self._git = git
        self._cache = cache
        self._lock = threading.Lock()
        self._indexed: OrderedDict[str, Snapshot] = OrderedDict()  # under the lock; the least recently used first
        self._manifests: dict[str, Directories] = {}  # MD5 -> its tree: content-addressed, so commits share it
        self._indexing = threading.Lock()  # one commit or manifest at a time; taken before `_lock`

    def known(self, commit: str) -> bool:
        """Tell whether a commit is indexed already."""
        with self._lock:
            return commit in self._indexed

    def get(self, commit: str) -> Snapshot:
        """Give a commit's index, made at the first call. `commit` is a full sha that exists."""
        found = self._cached(commit)
        if found is not None:
            return found
        with self._indexing:
            found = self._cached(commit)
            if found is None:
                found = Snapshot(_merge(self._git, commit), self._manifest)
                self._keep(commit, found)
        return found

    def _cached(self, commit: str) -> Snapshot | None:
        with self._lock:
            if commit in self._indexed:
                self._indexed.move_to_end(commit)
            return self._indexed.get(commit)

    def _keep(self, commit: str, snapshot: Snapshot) -> None:
        with self._lock:
            self._indexed[commit] = snapshot
            if len(self._indexed) > _COMMITS_KEPT:
                self._indexed.popitem(last=False)
                self._manifests.clear()  # those in use are read again

    def _manifest(self, node: Node) -> Directories:
        """Give the tree of a DVC directory. Raises NotFound while its manifest is not in the cache."""
        with self._lock:
            found = self._manifests.get(node.oid)
        if found is not None:
            return found
        with self._indexing:
            with open_file(self._cache.paths(node.oid, legacy=node.legacy)) as stored:
                tree = _manifest_tree(b"".join(stored.read(0, stored.size)), node.legacy)
            with self._lock:
                self._manifests[node.oid] = tree
        return tree


class Snapshot:
    """The merged tree of one commit. Paths are bytes relative to the root, b"" for the root itself."""

    def __init__(self, directories: Directories, expand: Callable[[Node], Directories]) -> None:
        self._directories = directories  # git's tree, and the tops of what DVC tracks
        self._expand = expand
        self._tracked = {
            (path + b"/" + name if path else name): node
            for path, children in directories.items()
            for name, node in children.items()
            if node.dvc and node.is_dir and node.oid
        }

    def lookup(self, path: bytes) -> Node:
        """Give the node of a path. Raises NotFound."""
        if not path:
            return ROOT
        parent, _, name = path.rpartition(b"/")
        node = self._directories.get(parent, _NOTHING).get(name)
        if node is None:
            node = self._tracked_children(parent).get(name)
        if node is None:
            raise NotFound("no such path in this commit")
        return node

    def children(self, path: bytes) -> list[tuple[bytes, Node]]:
        """Give a directory's names and nodes, in the order of their bytes. Raises NotFound, NotADirectory."""
        node = self.lookup(path)
        if not node.is_dir:
            raise NotADirectory("a file, not a directory")
        if node.submodule:
            raise NotFound("a submodule's files are in another repository")
        return sorted({**self._tracked_children(path), **self._directories.get(path, _NOTHING)}.items())

    def _tracked_children(self, path: bytes) -> Mapping[bytes, Node]:
        """Give what DVC's manifest has in a directory; nothing when no directory above is tracked."""
        top = path
        while self._tracked and top:
            node = self._tracked.get(top)
            if node is not None:
                return self._expand(node).get(path[len(top) + 1 :], _NOTHING)
            top = top.rpartition(b"/")[0]
        return _NOTHING


_NOTHING: Mapping[bytes, Node] = {}


def _merge(git: GitRepository, commit: str) -> Directories:
    """Index a commit: git's rows first, so that what both have stays git's."""
    directories: Directories = {b"": {}}
    metadata: dict[bytes, str] = {}
    for row in git.tree(commit):
        parent, _, name = row.path.rpartition(b"/")
        submodule = row.mode == _SUBMODULE
        is_dir = submodule or row.mode == _DIRECTORY
        directories[parent][name] = Node(row.oid, is_dir=is_dir, submodule=submodule)
        if is_dir:
            directories[row.path] = {}
        elif row.mode != _SYMLINK and (name in _PIPELINE or name.endswith(b".dvc")):
            metadata[row.path] = row.oid
    for out in _outs(git, metadata):
        oid = f"{out.md5}.dir" if out.is_dir else out.md5
        node = Node(oid, is_dir=out.is_dir, dvc=True, legacy=out.legacy)
        _insert(directories, out.path.encode("utf-8", "surrogateescape"), node)
    return directories


def _outs(git: GitRepository, metadata: Mapping[bytes, str]) -> Iterator[Out]:
    """Give what DVC holds; a pointer that cannot be parsed hides its own data only."""
    for path, oid in metadata.items():
        parent, _, name = path.rpartition(b"/")
        directory = parent.decode("utf-8", "surrogateescape")
        try:
            if name == b"dvc.lock":
                pipeline = metadata.get(path.removesuffix(b"lock") + b"yaml")
                outs = parse_lock(git.read(oid), directory, git.read(pipeline) if pipeline else None)
            elif name != b"dvc.yaml":
                outs = parse_dvc_file(git.read(oid), directory)
            else:
                continue
        except ProtocolError as error:
            log.warning("%s of the commit is left out: %s", path.decode(errors="replace"), error)
            continue
        yield from (out for out in outs if out.cached)


def _manifest_tree(data: bytes, legacy: bool) -> Directories:
    directories: Directories = {b"": {}}
    for entry in parse_manifest(data):
        path = entry.relpath.encode("utf-8", "surrogateescape")
        if not {b"", b".", b".."}.intersection(path.split(b"/")):
            _insert(directories, path, Node(entry.md5, dvc=True, legacy=legacy))
    return directories


def _insert(directories: Directories, path: bytes, node: Node) -> None:
    """Add a node and the directories above it; a directory of both git and DVC gets DVC's hash."""
    parent, _, name = path.rpartition(b"/")
    if parent not in directories:
        _insert(directories, parent, Node("", is_dir=True, dvc=True))
    siblings = directories[parent]
    known = siblings.get(name)
    if known is None or (known.is_dir and node.is_dir and not known.submodule):
        siblings[name] = node if node.oid or known is None else known
    if node.is_dir and siblings[name].is_dir:
        directories.setdefault(path, {})
