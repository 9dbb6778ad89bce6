"""A real S3-speaking server (moto) in a process of its own, that counts what it is asked and fails on command."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

BUCKET = "tier"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
"""What the environment of a mount needs beside the endpoint; any keys do."""


@dataclass(frozen=True)
class S3Server:
    """`url`: the endpoint."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.url, "AWS_DEFAULT_REGION": "us-east-1"}

    def client(self) -> Any:
        import boto3

        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, **keys)

    def keys(self, prefix: str = "") -> dict[str, int]:
        """Give the keys of the bucket and the sizes of their objects, in bytes."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", ())}

    def get(self, key: str) -> bytes:
        return self.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=data)

    def counts(self) -> Counter[str]:
        """Give how often each "METHOD STATUS" was answered since the last look, and the "bytes" of bodies sent."""
        return Counter(self._ask("counts"))

    def fail(self, how: str | None) -> None:
        """From now on answer "403" or "503", or nothing at all ("silence"); "PUT 403" only such requests; None is well
        again."""
        self._ask(f"fail?{(how or '').replace(' ', '-')}")

    def _ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/-/{what}", timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def s3_server(address: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> Iterator[S3Server]:
    """Run a server with an empty bucket BUCKET; `prefix` is put before its command (`ip netns exec NAME`)."""
    command = [*prefix, sys.executable, __file__, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield S3Server(process.stdout.readline().strip())
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class _Watch:
    """Counts the answers of an application, and fails in its place."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._failing = ""

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path = environ.get("PATH_INFO", "")
        if path.startswith("/-/"):
            return self._own(path[3:], environ.get("QUERY_STRING", ""), start)
        _understand_google(environ)
        method, _, status = self._failing.rpartition("-")
        if status == "silence":
            time.sleep(60)
            status = "503"
        if status and method in ("", environ["REQUEST_METHOD"]):
            with self._lock:
                self._counts[f"{environ['REQUEST_METHOD']} failed"] += 1
            start(f"{status} failing", [("Content-Length", "0")])
            return [b""]

        def counted(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            sent = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            with self._lock:
                self._counts[f"{environ['REQUEST_METHOD']} {status[:3]}"] += 1
                self._counts["bytes"] += sent if environ["REQUEST_METHOD"] == "GET" else 0
            return start(status, headers, *more)

        return self._application(environ, counted)

    def _own(self, what: str, query: str, start: Any) -> list[bytes]:
        with self._lock:
            counts = dict(self._counts)
            if what == "counts":
                self._counts.clear()
            else:
                self._failing = query
        body = json.dumps(counts).encode()
        start("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def _understand_google(environ: dict[str, Any]) -> None:
    """Google's XML API is S3's with other words for who asks and for "unless it is there"."""
    if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
        environ["HTTP_IF_NONE_MATCH"] = "*"
    if environ.get("HTTP_AUTHORIZATION", "Bearer").startswith("Bearer"):
        scope = "key/20260101/us-east-1/s3/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"


def _serve(address: str) -> None:
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server(address, 0, _Watch(application), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    running = S3Server(f"http://{address}:{server.server_port}")
    running.client().create_bucket(Bucket=BUCKET)
    running.counts()
    print(running.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
