"""Where a DVC remote or a tier is, and as whom to ask there: `.dvc/config` of the commit, and what the user's other
tools read. Nothing of it is shown or logged."""

from __future__ import annotations

import base64
import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dagfs.errors import UsageError
from dagfs.hub.urls import origin, redact
from dagfs.model import RepoRef, printable
from dagfs.origins.azure import azure_config
from dagfs.origins.bucket import Address

DEFAULT = "default"
"""What the user calls the remote that `.dvc/config` calls so, else the one that its core section names."""

REGION = "us-east-1"
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}
_ELSEWHERE = "dagfs speaks s3, gs, azure, http, https and paths of this machine"

_NAMES: dict[str | None, dict[str, str]] = {
    "s3": {
        "endpointurl": "endpoint",
        "region": "region",
        "access_key_id": "access_key_id",
        "secret_access_key": "secret_access_key",  # nosec B105 -- names of settings, here and below
        "session_token": "session_token",  # nosec B105
    },
    "az": {
        "account_name": "account_name",
        "account_key": "account_key",
        "sas_token": "sas_key",  # nosec B105
        "tenant_id": "tenant_id",
        "client_id": "client_id",
        "client_secret": "client_secret",  # nosec B105
    },
    "gs": {"credentialpath": "service_account", "endpointurl": "base_url"},
}
"""Of the kinds of stores: DVC's names of what obstore calls otherwise."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A section of DVC's configuration; `committed`: which of its options the commit says, and the user does not."""

    name: str
    url: str
    options: Mapping[str, str]
    committed: frozenset[str] = frozenset()


def find_remote(config: str, name: str, users: str = "") -> Remote | None:
    """Find a remote in the text of `.dvc/config`; None when DEFAULT is asked for and no remote is named.

    `users` is the configuration that DVC keeps for the user: it has what a commit must not, as passwords, and counts
    for a remote of that name unless it has another URL. Raises UsageError.
    """
    committed = _sections(config, ".dvc/config")
    if name == DEFAULT and DEFAULT not in _names(committed):
        name = committed.get("core", {}).get("remote", "")
        if not name:
            return None
    section = committed.get(_section(name))
    if section is None or "url" not in section:
        known = ", ".join(_names(committed)) or "none"
        raise UsageError(f".dvc/config has no remote {printable(name)}; it has {printable(known)}")
    own = _sections(users, "the user's DVC configuration").get(_section(name), {})
    if own.get("url", section["url"]) != section["url"]:
        own = {}
    alien = frozenset(option for option, value in section.items() if own.get(option) != value)
    return Remote(name, _resolved(section["url"], committed), {**own, **section}, alien)


def users_config(environment: Mapping[str, str]) -> str:
    """Read what DVC keeps for the user; "" when it is not there."""
    home = _home(environment)
    place = environment.get("DVC_GLOBAL_CONFIG_DIR") or f"{environment.get('XDG_CONFIG_HOME') or home + '/.config'}/dvc"
    return _read(Path(place) / "config")


def own_url(repo: RepoRef) -> str:
    """Give the URL of the DVC remote that a hub has for each repository (section 7 of its contract)."""
    return f"{repo.host}/{quote(repo.owner)}/{quote(repo.name)}.dvc"


def hub_url(remote: Remote, repo: RepoRef) -> str | None:
    """Give the URL of a remote that the hub itself has, over HTTP; None for one that is elsewhere."""
    plain = _without_user(remote.url)
    return plain if plain.startswith("http") and _at(plain, repo.host) else None


def remote_address(remote: Remote, repo: RepoRef, token: str | None, environment: Mapping[str, str]) -> Address:
    """Give the store of a remote that is not the hub's own. Raises UsageError for what dagfs does not speak."""
    url, options = remote.url, remote.options
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in ("http", "https"):
        return Address(_without_user(url).rstrip("/"), headers=_headers(url, options))
    if not scheme and not url.startswith("/"):
        raise UsageError(f"the remote {remote.name} is {printable(url)}, a path from a working copy: a mount has none")
    if scheme not in _SCHEMES and scheme not in ("", "file"):
        raise UsageError(f"the remote {remote.name} is at {printable(scheme)}://; {_ELSEWHERE}")
    kind = _SCHEMES.get(scheme)
    config: dict[str, Any] = {
        ours: options[theirs] for theirs, ours in _NAMES.get(kind, {}).items() if theirs in options
    }
    if kind == "s3" and "access_key_id" not in config:
        if token is not None and _at(config.get("endpoint", ""), repo.host):
            config |= {"access_key_id": token, "secret_access_key": token}  # the hub's own S3: its token is both
        else:
            config = aws_files(environment, options.get("profile"), options.get("credentialpath")) | config
    elif kind == "az":
        config = azure_config(environment, options, endpoint="connection_string" not in remote.committed) | config
    # What Google's clients send is the key itself: it goes to no server that only a commit names.
    strange = kind == "gs" and "endpointurl" in remote.committed
    if strange or options.get("allow_anonymous_login", "").lower() in ("true", "yes", "1"):
        config["skip_signature"] = True
    return _address(url, config, environment)


def tier_address(url: str, environment: Mapping[str, str]) -> Address:
    """Give the store of a tier, with the user's credentials for it. Raises UsageError."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _SCHEMES and scheme != "file" and not url.startswith("/"):
        raise UsageError(f"--shared-cache {redact(url)}: write s3://BUCKET/PREFIX, gs://, az:// or file:///PATH")
    kind = _SCHEMES.get(scheme)
    config = (
        aws_files(environment) if kind == "s3" else azure_config(environment, {}, endpoint=True) if kind == "az" else {}
    )
    return _address(url, config, environment)


def aws_files(environment: Mapping[str, str], profile: str | None = None, shared: str | None = None) -> dict[str, str]:
    """Read keys and region from the files that the AWS tools share. Keys of the environment go first, unless a
    `profile` is named; the library reads those by itself."""
    asked = profile or shared
    home = _home(environment)
    profile = profile or environment.get("AWS_PROFILE") or "default"
    keys = shared or environment.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/.aws/credentials"
    settings = environment.get("AWS_CONFIG_FILE") or f"{home}/.aws/config"
    found = _sections(_read(Path(settings).expanduser()), settings)
    section = found.get(profile if profile == "default" else f"profile {profile}", {})
    section = {**section, **_sections(_read(Path(keys).expanduser()), keys).get(profile, {})}
    told = {"region": section["region"]} if "region" in section else {}
    if "endpoint_url" in section:
        told["endpoint"] = section["endpoint_url"]
    if "aws_access_key_id" in section and (asked or "AWS_ACCESS_KEY_ID" not in environment):
        names = {"access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key"}  # nosec B105
        told |= {ours: section[theirs] for ours, theirs in names.items() if theirs in section}
        if "aws_session_token" in section:
            told["session_token"] = section["aws_session_token"]
    return told


def _address(url: str, config: Mapping[str, Any], environment: Mapping[str, str]) -> Address:
    scheme, _, rest = url.partition("://") if "://" in url else ("file", "", url)
    scheme = _SCHEMES.get(scheme, scheme)
    config = dict(config)
    if scheme == "s3" and "region" not in config and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & environment.keys():
        config["region"] = REGION
    return Address(f"{scheme}://{rest}".rstrip("/"), config)


def _headers(url: str, options: Mapping[str, str]) -> dict[str, str]:
    user = options.get("user") or _user_in(url)
    if options.get("auth", "").lower() == "custom" and "custom_auth_header" in options:
        return {options["custom_auth_header"]: options.get("password", "")}
    if not user or "password" not in options:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{options['password']}".encode()).decode()}


def _resolved(url: str, sections: Mapping[str, Mapping[str, str]]) -> str:
    """Follow `remote://NAME/PATH`, which stands for the URL of another remote."""
    if not url.startswith("remote://"):
        return url
    name, _, path = url.removeprefix("remote://").partition("/")
    base = sections.get(_section(name), {}).get("url", "")
    if not base or base.startswith("remote://"):
        raise UsageError(f".dvc/config has no remote {printable(name)} to build another upon")
    return f"{base.rstrip('/')}/{path}"


def _sections(text: str, where: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f"{where} cannot be read: {printable(str(error).splitlines()[0])}") from None
    # DVC quotes a section's name that has a space: ['remote "name"']
    return {name.strip("'"): {k: v.strip("\"'") for k, v in parser.items(name)} for name in parser.sections()}


def _section(name: str) -> str:
    return f'remote "{name}"'


def _names(sections: Mapping[str, object]) -> list[str]:
    return [name.removeprefix('remote "').removesuffix('"') for name in sections if name.startswith('remote "')]


def _at(url: str, host: str) -> bool:
    try:
        return origin(url) == origin(host)
    except ValueError:
        return False


def _user_in(url: str) -> str:
    authority = url.partition("://")[2].partition("/")[0]
    return authority.rpartition("@")[0].partition(":")[0]


def _without_user(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _home(environment: Mapping[str, str]) -> str:
    try:
        return environment.get("HOME") or str(Path.home())
    except RuntimeError:  # a container runs under a number that its user list does not have
        return "/nowhere"


def _read(path: Path) -> str:
    try:
        return path.read_text() if os.path.isfile(path) else ""
    except (OSError, UnicodeDecodeError):
        return ""
