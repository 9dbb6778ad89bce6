"""What the modules of a source tree import, read from their syntax: lazy and typing imports count like all others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("dagfs", "training")


@dataclass(frozen=True, slots=True)
class Import:
    """`importer` imports `imported`, at `line` of its file; both are dotted names."""

    importer: str
    imported: str
    line: int


def imports_of(root: Path) -> Iterator[Import]:
    """Give every import of every module of `PACKAGES` under `root`."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            yield from _imports(root, path)


def _imports(root: Path, path: Path) -> Iterator[Import]:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    package = parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        for name in _names(root, package, node):
            yield Import(module, name, node.lineno)  # type: ignore[attr-defined]  # import statements have lines


def _names(root: Path, package: tuple[str, ...], node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        start = ".".join(base + ([node.module] if node.module else []))
        return [_module_of(root, start, alias.name) for alias in node.names]
    if isinstance(node, ast.Call) and _is_dynamic_import(node.func) and node.args:
        first = node.args[0]
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def _module_of(root: Path, start: str, name: str) -> str:
    """`from a import b` means module a.b where there is one, else a's name b."""
    place = root.joinpath(*start.split("."), name)
    return f"{start}.{name}" if place.is_dir() or place.with_suffix(".py").is_file() else start


def _is_dynamic_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"__import__", "import_module"}
