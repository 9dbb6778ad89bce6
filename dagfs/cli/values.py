"""What an option's text means, and how figures are printed."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

BARE_BYTES = 10_000
"""Below it a number without a unit was meant in another one."""


def parse_size(text: str | int) -> int:
    """Give the bytes that 500MB, 50GiB or 1.5T mean; the type of an option, so ValueError is told by click."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)(B?)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size; write it like 50GiB or 500MB")
    number, letter, binary, bytes_said = match.groups()
    if not letter and not bytes_said and 0 < float(number) < BARE_BYTES:
        raise ValueError(f"{text!r} would be bytes; a size has a unit, like 50GiB or 500MB")
    unit = (_BINARY if binary and letter else _UNITS)[letter.upper()]
    return int(float(number) * unit)


def parse_address(text: str) -> str:
    """Take HOST:PORT, with brackets around an IPv6 address; the type of an option, as above."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare) != (bare != host) or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no address; write it like 127.0.0.1:9123")
    return text


def size_text(count: float) -> str:
    """Write bytes for people: 1,234 bytes as '1.2 KB'."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
