"""The demo's figures, as a table that a person understands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dagfs.demo.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Place:
    """How it went in one place: metrics.json of the training there, and seconds of a pass that only reads."""

    title: str
    training: dict[str, Any]
    reading_seconds: float


@dataclass(frozen=True, slots=True)
class Results:
    """What the demo has found: on the mount, there again, and on the plain copy.

    `cold` and `warm` are what the first two trainings made the mount ask the server for.
    """

    places: tuple[Place, ...]
    cold: Traffic
    warm: Traffic
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
    table = Table(title="The same training in three places, in seconds", title_justify="left")
    table.add_column("", no_wrap=True)
    for place in places:
        table.add_column(place.title, justify="right")
    table.add_row("first batch", *(f"{_epoch(place, 0)['first_batch_seconds']:.2f}" for place in places))
    table.add_row("epoch 1, reads and embeds", *(f"{_epoch(place, 0)['seconds']:.2f}" for place in places))
    if len(places[0].training["epochs"]) > 1:
        table.add_row("epoch 2, from memory", *(f"{_epoch(place, 1)['seconds']:.2f}" for place in places))
    table.add_row("reading alone", *(f"{place.reading_seconds:.2f}" for place in places))
    table.add_row("its share of epoch 1", *(f"{_share(place):.0%}" for place in places))
    console.print(table)
    console.print("Reading alone: all images opened and decoded one after another, without the neural network.")
    console.print(f"Fetched by the first training on the mount: {results.cold}.")
    console.print(f"Fetched by the second one: {results.warm}.")
    console.print(f"Embeddings and losses of the three trainings are {'' if results.identical else 'NOT '}identical.")
    console.print(f"Weights, loss curves and metrics: {results.output}/mount and {results.output}/copy", soft_wrap=True)


def _epoch(place: Place, number: int) -> dict[str, Any]:
    epoch: dict[str, Any] = place.training["epochs"][number]
    return epoch


def _share(place: Place) -> float:
    return place.reading_seconds / float(_epoch(place, 0)["seconds"])
