"""The demo's figures, as a table that a person understands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Place:
    """How it went in one place: metrics.json of the training there, and seconds of a pass that only reads."""

    title: str
    training: dict[str, Any]
    reading_seconds: float


@dataclass(frozen=True, slots=True)
class Results:
    """What the demo has found: on the mount, there again, and on the plain copy.

    `counters` are the daemon's after the first training.
    """

    places: tuple[Place, ...]
    counters: dict[str, int]
    output: Path

    @property
    def identical(self) -> bool:
        """The trainings saw the same embeddings and came to the same losses, bit for bit."""
        return all(_findings(self.places[0]) == _findings(place) for place in self.places)


def _findings(place: Place) -> tuple[Any, ...]:
    epochs = [(epoch["train_loss"], epoch["valid_loss"]) for epoch in place.training["epochs"]]
    return place.training["embeddings_sha256"], epochs


def show(console: Console, results: Results) -> None:
    """Print the table and what to know about it."""
    places = results.places
    table = Table(title="The same training in three places", title_justify="left")
    table.add_column("seconds")
    for place in places:
        table.add_column(place.title, justify="right")
    table.add_row("until the first batch", *(f"{_epoch(place, 0)['first_batch_seconds']:.2f}" for place in places))
    table.add_row("epoch 1: read and embed", *(f"{_epoch(place, 0)['seconds']:.2f}" for place in places))
    if len(places[0].training["epochs"]) > 1:
        table.add_row("epoch 2: embeddings in memory", *(f"{_epoch(place, 1)['seconds']:.2f}" for place in places))
    table.add_row("reading all images, nothing else", *(f"{place.reading_seconds:.2f}" for place in places))
    table.add_row("reading as a share of epoch 1", *(f"{_share(place):.0%}" for place in places))
    console.print(table)
    fetched, requests = results.counters.get("fetch.bytes", 0) / 1e6, results.counters.get("hub.requests", 0)
    console.print(
        f"Fetched for the first training: {results.counters.get('fetch.files', 0)} files, {fetched:.1f} MB, in "
        f"{requests} requests. Later epochs and trainings on the mount fetch nothing."
    )
    console.print(f"Embeddings and losses of the three trainings are {'' if results.identical else 'NOT '}identical.")
    console.print(f"Weights, loss curves and metrics: {results.output}/mount and {results.output}/copy", soft_wrap=True)


def _epoch(place: Place, number: int) -> dict[str, Any]:
    epoch: dict[str, Any] = place.training["epochs"][number]
    return epoch


def _share(place: Place) -> float:
    return place.reading_seconds / float(_epoch(place, 0)["seconds"])
