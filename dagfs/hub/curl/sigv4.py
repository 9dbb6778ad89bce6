"""The signature of an S3 request (AWS Signature Version 4): the hub's S3 endpoint takes the token as both keys."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote, urlsplit

REGION = "us-east-1"
_EMPTY = hashlib.sha256(b"").hexdigest()
_SIGNED = "host;x-amz-content-sha256;x-amz-date"


def headers(url: str, token: str, moment: datetime | None = None) -> list[str]:
    """Give the header lines of a GET of `url`, whose path is percent-encoded as S3 has it.

    In headers and not in the query, where proxies would log what is the token. `moment`: now, unless a test says so.
    """
    stamp = (moment or datetime.now(timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(_canonical(url, stamp).encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    signature = hmac.new(_key(token, scope), text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={token}/{scope}, SignedHeaders={_SIGNED}, Signature={signature}"
    return [f"Authorization: AWS4-HMAC-SHA256 {credential}", f"x-amz-content-sha256: {_EMPTY}", f"x-amz-date: {stamp}"]


def _canonical(url: str, stamp: str) -> str:
    parts = urlsplit(url)
    words = sorted((quote(k, safe=""), quote(v, safe="")) for k, v in parse_qsl(parts.query, keep_blank_values=True))
    query = "&".join(f"{name}={value}" for name, value in words)
    lines = f"host:{parts.netloc}\nx-amz-content-sha256:{_EMPTY}\nx-amz-date:{stamp}\n"
    return f"GET\n{parts.path or '/'}\n{query}\n{lines}\n{_SIGNED}\n{_EMPTY}"


def _key(token: str, scope: str) -> bytes:
    key = f"AWS4{token}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
