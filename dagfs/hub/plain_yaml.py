"""YAML that others have written, read into texts, numbers, lists and mappings, without what a few bytes can blow up."""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_DEPTH = 64
"""Levels of nesting. DVC needs five; the YAML library recurses on the C stack for each."""

MAX_MERGED = 10_000
"""Pairs that `<<` may bring into a mapping. Each merges what others have merged: nine levels of nine are a billion."""

MAX_DIGITS = 18

_MARGIN = re.compile(rb"^[ \-?]+", re.MULTILINE)
_NUMBER = re.compile(rf"[-+]?[0-9]{{1,{MAX_DIGITS}}}\Z")
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one parses a dvc.lock ten times as fast


def load(text: str | bytes) -> object:
    """Give what a text holds. Raises ValueError, in one line, for what is no YAML or no plain one."""
    try:
        if _may_be_deep(text):
            _refuse_deep_nesting(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 -- a loader with even less than the safe ones  # nosec B506
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"not plain YAML: {reason:.200}") from None


class _Loader(_Base):  # type: ignore[misc]  # chosen at run time
    """Knows no dates, floats, binaries or numbers in base 60, whose cost grows with the square of their length."""

    yaml_implicit_resolvers: Any = {}  # noqa: RUF012 -- filled below, never changed
    yaml_constructors: Any = {}  # noqa: RUF012 -- likewise

    def flatten_mapping(self, node: Any) -> None:
        before = len(node.value)
        super().flatten_mapping(node)
        if len(node.value) - before > MAX_MERGED:  # PyYAML bounds it by itself since 6.0.4
            raise yaml.YAMLError(f"more than {MAX_MERGED} pairs in one mapping by way of <<")

    def construct_yaml_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        if not _NUMBER.match(text):
            raise yaml.YAMLError("a number that is none")
        return int(text)


_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in (
    ("bool", yaml.SafeLoader.yaml_implicit_resolvers["t"][0][1], "yYnNtTfFoO"),
    ("int", _NUMBER, "-+0123456789"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<\Z"), "<"),
):
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, list(_first))
for _name in ("null", "bool", "int", "str", "seq", "map"):
    _Loader.add_constructor(_TAG + _name, getattr(_Loader, f"construct_yaml_{_name}"))
_Loader.add_constructor(None, _Loader.construct_undefined)


def _may_be_deep(text: str | bytes) -> bool:
    """Bound the depth without parsing: a level takes a bracket, or a column before its line's first word."""
    plain = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    margin = max(map(len, _MARGIN.findall(plain)), default=0)
    return plain.count(b"[") + plain.count(b"{") + margin > MAX_DEPTH


def _refuse_deep_nesting(text: str | bytes) -> None:
    """Count in the tokens, as scanning does not recurse, while building the document does; it takes as long again."""
    depth = 0
    opening = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
    block = (yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken)
    closing = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    for token in yaml.scan(text, Loader=_Loader):
        if isinstance(token, opening + block):
            depth += 1
        elif isinstance(token, closing):
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
