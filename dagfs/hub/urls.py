"""URLs of a hub: built, taken apart, and made fit to be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from dagfs.errors import UsageError
from dagfs.model import RepoRef

_ABSOLUTE = re.compile(r"(https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?=[/?#]|\Z)", re.IGNORECASE)
"""What all parsers understand alike. No user part, no backslash, no zone: where two parsers see different hosts in
one URL, a token goes to the wrong one."""

_SEGMENT = re.compile(r"[^\s/\\?#@:\x00-\x1f\x7f]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is spoken to: a token given to one origin is never shown to another."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def origin(url: str) -> Origin:
    """Give the origin of an absolute http(s) URL; raises ValueError, without the URL, on any other."""
    match = _ABSOLUTE.match(url)
    if match is None:
        raise ValueError("not a plain http or https URL")
    scheme, host, port = match.groups()
    number = int(port) if port else _DEFAULT_PORTS[scheme.lower()]
    if not 0 < number < 65536:
        raise ValueError("a URL with an impossible port")
    return Origin(scheme.lower(), host.lower(), number)


def encode(path: str) -> str:
    """Percent-encode a path for a URL: UTF-8, "/" stays; names that are not UTF-8 give back their own bytes."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can spell it, bytes cannot
        raw = path.encode("utf-8", "surrogatepass")
    # A dot segment would be folded away by the client: it has to reach the hub as it is.
    return "/".join(_DOTS.get(part, part) for part in quote(raw, safe="/").split("/"))


_DOTS = {".": "%2E", "..": "%2E%2E"}


def api(host: str) -> str:
    return f"{host}/api/v1"


def repository(repo: RepoRef) -> str:
    return f"{api(repo.host)}/repos/{encode(repo.owner)}/{encode(repo.name)}"


def branch(repo: RepoRef, name: str) -> str:
    return f"{repository(repo)}/branches/{encode(name)}"


def commit(repo: RepoRef, ref: str) -> str:
    return f"{repository(repo)}/commits/{encode(ref)}"


def content(repo: RepoRef, ref: str, path: str, *, sized: bool = False) -> str:
    """Give the URL that lists a directory or describes a file; the root's ends with a slash."""
    return f"{repository(repo)}/content/{encode(ref)}/{encode(path)}{'?include_size=true' if sized else ''}"


def raw(repo: RepoRef, ref: str, path: str) -> str:
    return f"{repository(repo)}/raw/{encode(ref)}/{encode(path)}"


def storages(repo: RepoRef) -> str:
    return f"{repository(repo)}/storage"


def storage_raw(repo: RepoRef, where: str) -> str:
    """Give the URL of an object's bytes; `where` is PROTOCOL/BUCKET/KEY."""
    return f"{storages(repo)}/raw/{encode(where)}"


def storage_page(repo: RepoRef, where: str, limit: int, token: str | None = None) -> str:
    """Give the URL of a page of a folder's entries, or of what an object is."""
    query = f"paging=true&include_size=true&limit={limit}"
    more = f"&from_token={quote(token, safe='')}" if token else ""
    return f"{storages(repo)}/content/{encode(where)}?{query}{more}"


def redact(url: str) -> str:
    """Make a URL fit for errors and logs: without credentials, query and fragment, which may be secrets."""
    plain = re.split(r"[?#]", url, maxsplit=1)[0]
    return re.sub(r"(?<=//)[^/]*@", "", plain)


def redact_proxy(url: str) -> str:
    """Do the same for a proxy, whose URL may come without a scheme and with any characters in its password."""
    return re.sub(r"\A([a-z0-9]+://)?(.*@)?([^?#]*).*", r"\1\3", url, flags=re.IGNORECASE | re.DOTALL)


def parse_repo(argument: str, default_host: str) -> tuple[RepoRef, str | None]:
    """Read OWNER/NAME[@REV] or https://HOST[/PREFIX]/OWNER/NAME[.git][@REV]; a revision may have slashes.

    Raises UsageError, whose text never holds credentials.
    """
    text = argument.strip()
    if "://" not in text:
        if re.match(r"[^/@]+@[^/]+:", text):
            raise UsageError(
                f"an SSH address cannot be mounted; use https://{text.split('@', 1)[1].replace(':', '/', 1)}"
            )
        location, revision = _split_revision(text)
        host, segments = check_host(default_host), location
    elif text.startswith("dagshub://"):
        raise UsageError(f"{redact(argument)!r} is a path for fsspec; a mount takes OWNER/NAME, without dagshub://")
    else:
        host, location, revision = _split_url(text, check_host(default_host))
        segments = location
    parts = segments.strip("/").removesuffix(".git").split("/")
    if len(parts) != 2 or not all(_SEGMENT.fullmatch(part) and part not in _DOTS for part in parts):
        raise UsageError(f"{redact(argument)!r} is not a repository; write OWNER/NAME or https://HOST/OWNER/NAME")
    return RepoRef(host, parts[0], parts[1]), revision


def check_host(host: str) -> str:
    """Give a hub's URL in its one form: lower-case origin, path prefix, no trailing slash. Raises UsageError."""
    try:
        where = origin(host)
    except ValueError:
        raise UsageError(f"{redact(host)!r} is not a hub; write https://HOST without user name or password") from None
    prefix = host[_end_of_origin(host) :].rstrip("/")
    if "?" in prefix or "#" in prefix:
        raise UsageError(f"{redact(host)!r} is not a hub; write https://HOST without query")
    return f"{where}{prefix}"


def _split_url(text: str, default_host: str) -> tuple[str, str, str | None]:
    """Give host with prefix, OWNER/NAME, and the revision."""
    authority = text.split("://", 1)[1].split("/", 1)[0]
    if "@" in authority:
        raise UsageError(
            "the repository's URL holds credentials, which every user of the machine can see in the list of "
            "processes; put the token into DAGSHUB_USER_TOKEN or a file named by --token-file"
        )
    url, revision = _split_revision(text)
    if "?" in url or "#" in url:
        raise UsageError(f"{redact(url)!r}: a repository's URL has no query and no fragment")
    url = url.rstrip("/")
    host = check_host(url[: _end_of_origin(url)] or url)
    path = url[_end_of_origin(url) :].strip("/")
    prefix, _, owner = path.rpartition("/")[0].rpartition("/")
    if f"{host}/{path}/".startswith(f"{default_host}/"):
        # The hub is known, so the rest is the repository: a page below it is a mistake, not a prefix.
        return default_host, f"{host}/{path}"[len(default_host) + 1 :], revision
    name = path.rpartition("/")[2]
    return f"{host}/{prefix}".rstrip("/"), unquote(f"{owner}/{name}"), revision


def _split_revision(text: str) -> tuple[str, str | None]:
    location, at, revision = text.partition("@")
    if at and not revision:
        raise UsageError("nothing follows the @; name a branch, tag or commit, or leave the @ out")
    return location, revision or None


def _end_of_origin(url: str) -> int:
    match = _ABSOLUTE.match(url)
    return match.end() if match else 0
