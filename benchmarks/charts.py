"""PNG charts: one contender, one colour, in every chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "local disk": "#9a9a9a",
    "bare link": "#4c4c4c",
    "dagfs": "#1f77b4",
    "dagfs, libfuse": "#8ec1e6",
    "rclone mount": "#e08214",
    "DagsHub hooks": "#b2182b",
}
WIDTH = 10  # inches; 1,200 pixels


def colour_of(name: str) -> str:
    return COLOURS.get(name.partition(" (")[0], "#2ca02c")


@dataclass(frozen=True)
class Chart:
    """Where a chart goes, its title, and the unit of its values."""

    path: Path
    title: str
    unit: str
    log: bool = True


def bars(
    chart: Chart, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], *, limit: float | None = None
) -> None:
    """Draw a bar of each series in each group; None is no bar. `limit` is a line that says how much the link gives."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    width = 0.84 / len(series)
    for number, (name, values) in enumerate(series.items()):
        spots = [group + (number - (len(series) - 1) / 2) * width for group in range(len(groups))]
        shown = [(spot, value) for spot, value in zip(spots, values, strict=True) if value is not None]
        if shown:
            drawn = axes.bar(*zip(*shown, strict=True), width=width * 0.94, color=colour_of(name), label=name)
            axes.bar_label(drawn, fmt=_short, fontsize=7, padding=1)
    if limit is not None:
        axes.axhline(limit, color="#4c4c4c", linewidth=0.8, linestyle="--", label="what the link carries")
    axes.set_xticks(range(len(groups)), groups, fontsize=9)
    if chart.log:
        axes.set_yscale("log")
    axes.margins(y=0.12)
    _finish(figure, axes, chart)


def lines(chart: Chart, across: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw a line of points for each series, both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    _finish(figure, axes, chart)


def _finish(figure: plt.Figure, axes: plt.Axes, chart: Chart) -> None:
    axes.set_title(chart.title, fontsize=11)
    axes.set_ylabel(chart.unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    chart.path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(chart.path, dpi=120)
    plt.close(figure)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
