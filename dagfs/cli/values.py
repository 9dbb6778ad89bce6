"""What an option's text means, and how figures are printed."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Size(click.ParamType[int]):
    """A number of bytes: 500MB, 50GiB, 1.5T."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", value, re.IGNORECASE)
        if not match:
            self.fail(f"{value!r} is not a size; write it like 50GiB or 500MB", param, ctx)
        number, letter, binary = match.groups()
        unit = (_BINARY if binary and letter else _UNITS)[letter.upper()]
        return int(float(number) * unit)


def size_text(count: float) -> str:
    """Write bytes for people: 1,234 bytes as '1.2 KB'."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
