"""Azure's keys as its tools and DVC write them, which obstore does not read: connection strings, names of `az`."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_VARIABLES = {
    "AZURE_STORAGE_ACCOUNT": "account_name",
    "AZURE_STORAGE_KEY": "account_key",
}
_PARTS = {
    "accountname": "account_name",
    "accountkey": "account_key",
    "sharedaccesssignature": "sas_key",
    "blobendpoint": "endpoint",
}
_SUFFIX = "core.windows.net"


def azure_config(environment: Mapping[str, str], options: Mapping[str, str], *, endpoint: bool) -> dict[str, str]:
    """Give the library's settings for what the environment and a remote's `options` of DVC say beside what both call
    alike. Keys of the environment that are of another account than the remote names are left out.

    `endpoint`: whether the options may name the server. What Azure's clients sign does not name it: a server that only
    a commit names could ask Azure in the user's name.
    """
    account = options.get("account_name")
    found = {ours: environment[name] for name, ours in _VARIABLES.items() if name in environment}
    found |= _connection(environment.get(CONNECTION, ""))
    if account is not None and found.get("account_name", account) != account:
        found = {}
    told = _connection(options.get("connection_string", ""))
    if not endpoint:
        told.pop("endpoint", None)
    return found | told


def _connection(text: str) -> dict[str, str]:
    """Take a connection string apart: `AccountName=...;AccountKey=...;...`, in any order."""
    parts = {
        name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in text.split(";"))
    }
    found = {ours: parts[theirs] for theirs, ours in _PARTS.items() if parts.get(theirs)}
    if "endpoint" in found:
        found["endpoint"] = found["endpoint"].rstrip("/")
        found.setdefault("account_name", (urlsplit(found["endpoint"]).hostname or "").partition(".")[0])
    elif "account_name" in found and parts.get("endpointsuffix", _SUFFIX) != _SUFFIX:
        protocol = parts.get("defaultendpointsprotocol", "https")
        found["endpoint"] = f"{protocol}://{found['account_name']}.blob.{parts['endpointsuffix']}"
    return found
