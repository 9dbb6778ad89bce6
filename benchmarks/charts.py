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
WIDTH = 12  # inches; 1,440 pixels: the labels of seven bars in each of six groups stand side by side
LABEL = 6.5  # points
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # no line strikes a label through


def colour_of(name: str) -> str:
    return COLOURS.get(name.partition(" (")[0], "#2ca02c")


@dataclass(frozen=True)
class Chart:
    """Where a chart goes, its title, the unit of its values, and whether their axis is logarithmic."""

    path: Path
    title: str
    unit: str
    log: bool = True


def bars(
    chart: Chart,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    limits: Sequence[float | None] = (),
) -> None:
    """Draw a bar of each series in each group; None is no bar. `limits` are what the link allows in each group."""
    figure, axes = _new(chart)
    width = 0.84 / len(series)
    for number, (name, values) in enumerate(series.items()):
        spots = [group + (number - (len(series) - 1) / 2) * width for group in range(len(groups))]
        shown = [(spot, value) for spot, value in zip(spots, values, strict=True) if value is not None]
        if shown:
            drawn = axes.bar(*zip(*shown, strict=True), width=width * 0.94, color=colour_of(name), label=name)
            axes.bar_label(drawn, fmt=_short, fontsize=LABEL, padding=2, zorder=4, bbox=PLATE)
    for group, limit in enumerate(limits):
        if limit is not None:
            label = "" if any(limits[:group]) else "the link's limit"
            axes.hlines(
                limit, group - 0.46, group + 0.46, colors="#000000", linestyles="--", linewidth=0.9, label=label
            )
    axes.set_xticks(range(len(groups)), [group.replace(", ", ",\n") for group in groups], fontsize=9)
    axes.margins(y=0.12)
    _finish(figure, axes, chart)


def lines(chart: Chart, across: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Draw a line of points for each series over a logarithmic axis."""
    figure, axes = _new(chart)
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(across)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if not chart.log:
        axes.set_ylim(bottom=0)
    _finish(figure, axes, chart)


def _new(chart: Chart) -> tuple[plt.Figure, plt.Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    axes.set_title(chart.title, fontsize=11)
    axes.set_ylabel(chart.unit)
    if chart.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
    return figure, axes


def _finish(figure: plt.Figure, axes: plt.Axes, chart: Chart) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=7, frameon=False, fontsize=8.5, columnspacing=1.2, handlelength=1.4)
    chart.path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(chart.path, dpi=120)
    plt.close(figure)


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
