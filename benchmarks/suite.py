"""Runs the benchmarks and renews what the documents show of them: tables between markers, charts in docs/charts.

    make bench [PARTS="side_by_side scale"] [SIZE=full|quick|tiny]
    .venv/bin/python benchmarks/suite.py [PART...] [--size quick] [--rounds 3] [--redraw] [--print]

Figures are kept in build/bench/PART.json; --redraw makes tables and charts from them and measures nothing. --print
leaves documents and charts alone; sizes other than full do, too, unless --write is said.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measuring import ROOT, lacking, machine, say
from report import Table, renew_documents, show

KEPT = ROOT / "build/bench"
CHARTS = ROOT / "docs/charts"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs/performance.md",
    ROOT / "docs/design.md",
    ROOT / "docs/shared-cache.md",
    ROOT / "docs/dvc-remotes.md",
)


@dataclass(frozen=True)
class Part:
    """A module of this directory, with what its `measure` is told at each size; None: not at this size."""

    module: str
    quick: Mapping[str, Any]
    tiny: Mapping[str, Any] | None = None
    full: Mapping[str, Any] | None = None

    def options(self, size: str) -> Mapping[str, Any] | None:
        return {"full": self.full or {}, "quick": self.quick, "tiny": self.tiny}[size]


PARTS = (
    Part("side_by_side", {"rounds": 1, "files": 100}, {"rounds": 1, "files": 8, "others": False}),
    Part("cold", {"rounds": 1, "only": "300 "}),
    Part("warm", {"rounds": 1, "files": 500}),
    Part("kernel_limit", {"rounds": 1, "files": 500, "mib": 64}),
    Part("accelerator", {"rounds": 1, "share": 4}),
    Part("large", {"rounds": 1, "mib": 128}),
    Part("fio", {"rounds": 1, "mib": 128, "seconds": 2}, {"rounds": 1, "mib": 1, "seconds": 0.2}),
    Part(
        "scale",
        {"files": [1000, 10_000], "one_directory": 50_000},
        {"files": [1000], "one_directory": 0, "latency_ms": 0},
    ),
    Part("where", {"files": 500, "one_directory": 50_000}),
    Part("busy", {"rounds": 1}),
    Part("start", {"rounds": 1}),
    Part("first_look", {"rounds": 1}),
    Part("adapters", {"rounds": 1, "files": 500}),
    Part("http_clients", {"rounds": 1, "files": 300}),
    Part(
        "shared",
        {"files": 100, "nodes": [1, 2], "large": 20_000_000},
        {"files": 6, "nodes": [1], "large": 9_000_000},
    ),
)
"""In the order in which they run. What `full` leaves out is as the module has it."""


def chosen(names: list[str], size: str) -> list[Part]:
    """Give the parts to run. Raises SystemExit for a name that is none."""
    known = {part.module: part for part in PARTS}
    unknown = set(names) - set(known)
    if unknown:
        raise SystemExit(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [part for part in PARTS if part.module in (names or known) and part.options(size) is not None]


def figures_of(part: Part, options: argparse.Namespace) -> dict[str, Any] | None:
    """Measure a part and keep its figures, or give those that were kept; None when none were."""
    kept = KEPT / f"{part.module}.json"
    if options.redraw:
        return json.loads(kept.read_text()) if kept.exists() else None
    module = importlib.import_module(part.module)
    without = lacking(*getattr(module, "NEEDS", ()))
    say(f"part {part.module}" + (f" is left out, {without}" if without else ""))
    if without:
        return None
    told = dict(part.options(options.size) or {})
    if options.rounds and "rounds" in inspect.signature(module.measure).parameters:
        told["rounds"] = options.rounds
    figures: dict[str, Any] = module.measure(**told)
    figures["size"] = options.size
    KEPT.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(figures, indent=1))
    return figures


def tables_of(parts: list[Part], options: argparse.Namespace, charts: Path | None) -> Iterator[Table]:
    """Give each part's tables as soon as they are known, and draw its charts."""
    for part in parts:
        figures = figures_of(part, options)
        if figures is None:
            continue
        module = importlib.import_module(part.module)
        size = figures.pop("size")
        if charts is not None and hasattr(module, "draw"):
            module.draw(figures, charts)
        for table in module.tables(figures):
            yield table if size == "full" else replace(table, command=f"{table.command} SIZE={size}")


def machine_table() -> Table:
    facts = {name: str(value) for name, value in machine().items()}
    return Table("machine", "make bench", list(facts), [list(facts.values())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(part.module for part in PARTS))
    parser.add_argument("--size", choices=("full", "quick", "tiny"), default="full")
    parser.add_argument("--rounds", type=int, help="how often each is measured, medians are shown")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, show the figures of build/bench")
    parser.add_argument("--print", action="store_true", help="leave documents and charts alone")
    parser.add_argument("--write", action="store_true", help="renew documents and charts, whatever the size")
    options = parser.parse_args()
    write = options.write or (options.size == "full" and not options.print)
    made = [machine_table()]
    for table in tables_of(chosen(options.parts, options.size), options, CHARTS if write else None):
        show([table])
        made.append(table)
        if write:  # at once: what was measured is not lost when a later part fails
            renew_documents(DOCUMENTS, [made[0], table])


if __name__ == "__main__":
    main()
