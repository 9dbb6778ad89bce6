"""The DagsHub client's token file, as `dagfs login` and `logout` change it: other entries keep their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from dagfs.config import private_directory
from dagfs.errors import UsageError
from dagfs.hub import plain_yaml
from dagfs.hub.auth import read_regular

APP, OAUTH = "app-token", "bearer"
NEVER = "never"
VERSION = "1"

_TRIES = 5
"""The client writes the file without a lock: when it does so meanwhile, begin again with what it wrote."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """One entry, with the fields and in the order that the client writes."""

    access_token: str
    expiry: str
    token_type: str

    def __repr__(self) -> str:
        return f"StoredToken({self.token_type}, expires {self.expiry})"


class ClientTokens:
    """Changes the file by rename, mode 0600. Raises UsageError for a file that is no token file, and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, host: str, token: StoredToken) -> None:
        """Put a token before the host's others, so that it is the one that is used; nothing when it is there."""

        def added(text: str, document: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
            known = document.get(host) or []
            if any(_value(entry) == token.access_token for entry in known):
                return text, document
            return _insert(text, host, token), {"version": VERSION, **document, host: [asdict(token), *known]}

        self._change(added)

    def remove(self, host: str, unwanted: Callable[[str], bool]) -> int:
        """Remove the host's tokens that are `unwanted`, and give how many those were."""
        count = 0

        def removed(text: str, document: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
            nonlocal count
            known = document.get(host) or []
            kept = [entry for entry in known if not unwanted(_value(entry))]
            count = len(known) - len(kept)
            if not count:
                return text, document
            rest = {name: value for name, value in document.items() if name != host}
            return _cut(text, host, unwanted), rest | ({host: kept} if kept else {})

        if self.path.exists():
            self._change(removed)
        return count

    def values(self, host: str) -> list[str]:
        """Give the host's tokens, the dead ones too."""
        return [_value(entry) for entry in _document(self._read()[0], self.path).get(host) or []]

    def _change(self, edit: Callable[[str, dict[str, Any]], tuple[str | None, dict[str, Any]]]) -> None:
        """`edit` gives the new text and what it must mean; where it does not mean that, the file is written anew."""
        path = Path(os.path.realpath(self.path))  # a link stays one
        for _ in range(_TRIES):
            text, before = self._read()
            changed, meaning = edit(text, _document(text, self.path))
            if changed == text:
                return
            if changed is None or not _means(changed, meaning):
                changed = yaml.safe_dump(meaning)
            if _publish(path, changed, lambda: self._read()[1] == before):  # noqa: B023 -- called at once
                return
        raise UsageError(f"{self.path} is changed by another program again and again: try once more")

    def _read(self) -> tuple[str, tuple[int, int, int] | None]:
        """Give the text, and what changes with the file. Raises UsageError for a file that is not text."""
        try:
            status, data = read_regular(self.path)
            return data.decode("utf-8"), (status.st_mtime_ns, status.st_ino, status.st_size)
        except FileNotFoundError:
            return "", None
        except UnicodeDecodeError:
            raise _strange(self.path) from None


class Logins:
    """Which tokens `dagfs login` has stored: their hashes, by host. What others have stored is not ours to remove."""

    def __init__(self, state: Path) -> None:
        self._path = state / "logins.json"

    def note(self, host: str, token: str) -> None:
        known = self._read()
        known[host] = [*known.get(host, []), _hash(token)]
        self._write(known)

    def ours(self, host: str) -> Callable[[str], bool]:
        """Give whether a token of this host is one of ours."""
        known = set(self._read().get(host, []))
        return lambda token: _hash(token) in known

    def forget(self, host: str) -> None:
        known = self._read()
        if known.pop(host, None) is not None:
            self._write(known)

    def _read(self) -> dict[str, list[str]]:
        try:
            known = json.loads(self._path.read_text())
            return {str(host): [str(one) for one in hashes] for host, hashes in known.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _write(self, known: dict[str, list[str]]) -> None:
        private_directory(self._path.parent)
        _publish(self._path, json.dumps(known), lambda: True)


def _document(text: str, path: Path) -> dict[str, Any]:
    try:
        document = plain_yaml.load(text)
    except ValueError:
        raise _strange(path) from None
    document = {} if document is None else document
    if not isinstance(document, dict) or not all(_lists(name, value) for name, value in document.items()):
        raise _strange(path)
    if document.get("version", VERSION) not in (VERSION, int(VERSION)):
        raise UsageError(f"{path} is of a newer DagsHub client (version {document['version']!r}): log in with that")
    return document


def _lists(name: object, value: object) -> bool:
    return name == "version" or value is None or isinstance(value, list)


def _strange(path: Path) -> UsageError:
    return UsageError(f"{path} is no token file of the DagsHub client: look at it, and move it away")


def _value(entry: object) -> str:
    return str(entry.get("access_token", "")) if isinstance(entry, dict) else ""


def _means(text: str, meaning: dict[str, Any]) -> bool:
    try:
        return plain_yaml.load(text) == meaning
    except ValueError:
        return False


def _insert(text: str, host: str, token: StoredToken) -> str | None:
    """Write an entry into the text; None where the text is not written as the client does."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return f"{text}{_key(host)}:\n{_item(token, '')}version: '{VERSION}'\n"
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    for key, value in root.value:
        if key.value == host:
            if not isinstance(value, yaml.SequenceNode) or value.flow_style:
                return None
            at, indent = value.start_mark.index, " " * value.start_mark.column
            return text[:at] + _item(token, indent).removeprefix(indent) + indent + text[at:]
    at = root.start_mark.index
    if root.start_mark.column:
        return None
    version = "" if any(key.value == "version" for key, _ in root.value) else f"version: '{VERSION}'\n"
    return f"{text[:at]}{_key(host)}:\n{_item(token, '')}{version}{text[at:]}"


def _cut(text: str, host: str, unwanted: Callable[[str], bool]) -> str | None:
    """Take entries out of the text; likewise."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value != host or not isinstance(value, yaml.SequenceNode):
            continue
        spans = [(_line(text, item), _end(text, item), _field(item)) for item in value.value]
        gone = [(start, end) for start, end, token in spans if unwanted(token)]
        if len(gone) == len(spans):
            gone = [(_line(text, key), spans[-1][1])]
        for start, end in reversed(gone):
            text = text[:start] + text[end:]
        return text
    return None


def _line(text: str, node: yaml.Node) -> int:
    return text.rfind("\n", 0, node.start_mark.index) + 1


def _end(text: str, item: yaml.Node) -> int:
    last = item.value[-1][1] if isinstance(item, yaml.MappingNode) and item.value else item
    newline = text.find("\n", last.end_mark.index)
    return len(text) if newline < 0 else newline + 1


def _field(item: yaml.Node) -> str:
    fields = item.value if isinstance(item, yaml.MappingNode) else ()
    return next((str(value.value) for name, value in fields if name.value == "access_token"), "")


def _item(token: StoredToken, indent: str) -> str:
    lines = [f"{name}: {_scalar(value)}\n" for name, value in asdict(token).items()]
    return f"{indent}- " + f"{indent}  ".join(lines)


def _key(host: str) -> str:
    return _scalar(host)


def _scalar(text: str) -> str:
    """Write a word as the client does: quoted where YAML would take it for something else."""
    return str(yaml.safe_dump(text, width=len(text) + 80)).partition("\n")[0]


def _publish(path: Path, text: str, still: Callable[[], bool]) -> bool:
    """Replace a file by rename, with mode 0600 and the owner it had; False when `still` says no just before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            _keep_owner(path, file.fileno())
        if not still():
            return False
        os.replace(draft, path)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _keep_owner(path: Path, fd: int) -> None:
    """After `sudo dagfs login` the file is still its user's."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and path.exists():
        status = path.stat()
        os.fchown(fd, status.st_uid, status.st_gid)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
