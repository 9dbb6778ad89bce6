"""The guide's data generator: batches of embeddings and scores for keras' `fit`."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np
from numpy.typing import NDArray

from training.annotations import AnnotatedImages, deal, shuffled, with_caption
from training.errors import BrokenData

Array = NDArray[np.float32]


class FeatureExtractor(Protocol):
    """What the generator asks of an extractor."""

    @property
    def width(self) -> int: ...

    def extract(self, paths: Sequence[str | os.PathLike[str]]) -> Array: ...


class LAIONAestheticsTable(AnnotatedImages[FeatureExtractor, Array]):
    """The rows, and the embeddings of their images; an embedding is computed when it is first asked for, and kept."""

    def embed(self, positions: Sequence[int]) -> Array:
        """Give float32, (N, width). Thread-safe: who finds a row unknown computes it again. Raises BrokenData."""
        missing = [position for position in positions if position not in self.embeddings]
        if missing:
            self.embeddings.update(zip(missing, self._extract(missing), strict=True))
        return np.stack([self.embeddings[position] for position in positions])

    def scores(self, positions: Sequence[int]) -> Array:
        """Give float32, (N,)."""
        return np.array([self.samples[position].score for position in positions], dtype=np.float32)

    def _extract(self, positions: Sequence[int]) -> Array:
        try:
            return self.feature_extractor.extract([self.img_dir / self.samples[i].name for i in positions])
        except OSError as error:
            rows = (self.samples[i] for i in positions)
            row = next((row.row for row in rows if str(error).startswith(f"{self.img_dir / row.name}: ")), None)
            where = self.annotations_file if row is None else f"{self.annotations_file}, row {row}"
            raise BrokenData(f"{where}: {error}") from error


class LAIONAestheticsGenerator(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
    """Batches of float32 (N, width) and (N,). `positions` are dealt out anew after each epoch, if there is a `seed`.

    `failure` is what ended it: keras hides an error of a generator in one of its own.
    """

    def __init__(
        self,
        table: LAIONAestheticsTable,
        positions: Sequence[int],
        batch_size: int = 32,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        """`workers`: threads of keras that fill batches."""
        super().__init__(workers=workers)
        self.table = table
        self.positions = list(positions)
        self.batch_size = batch_size
        self.seed = seed
        self.failure: BrokenData | None = None
        self._epoch = 0
        self._order = self._dealt()

    def __len__(self) -> int:
        return math.ceil(len(self.positions) / self.batch_size)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Give the batch number `index`. Raises BrokenData."""
        batch = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        try:
            return self.table.embed(batch), self.table.scores(batch)
        except BrokenData as error:
            self.failure = error
            raise

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._order = self._dealt()

    def _dealt(self) -> list[int]:
        if self.seed is None:
            return self.positions
        return [self.positions[i] for i in shuffled(len(self.positions), self.seed + self._epoch)]


def generators(
    table: LAIONAestheticsTable, caption: str = "", seed: int = 0, **options: Any
) -> tuple[LAIONAestheticsGenerator, LAIONAestheticsGenerator]:
    """Give training and validation, split as PyTorch's `split` does; `options` are batch_size and workers.

    Raises BrokenData when there are fewer than two samples.
    """
    chosen = with_caption(table.samples, caption)
    train, valid = ([chosen[i] for i in part] for part in deal(len(chosen), seed))
    shuffling = LAIONAestheticsGenerator(table, train, seed=seed, **options)
    return shuffling, LAIONAestheticsGenerator(table, valid, **options)
