"""Loss curves as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.command import Epoch


def plot_losses(epochs: Sequence[Epoch], baseline: float, path: Path) -> None:
    """Draw training and validation loss over the epochs; `baseline` is the error of always guessing the mean score."""
    numbers = range(1, len(epochs) + 1)
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(numbers, [epoch.train_loss for epoch in epochs], marker="o", label="training")
    axes.plot(numbers, [epoch.valid_loss for epoch in epochs], marker="s", label="validation")
    axes.axhline(baseline, color="grey", linestyle="--", label="always the mean score (validation)")
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean squared error of the score")
    axes.set_title("Aesthetics predictor")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
