"""The guide's data set for PyTorch: images' embeddings and aesthetic scores."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from typing import Protocol, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from training.annotations import AnnotatedImages, Sample, deal, with_caption
from training.errors import BrokenData


class FeatureExtractor(Protocol):
    """What the data set asks of an extractor."""

    @property
    def width(self) -> int: ...

    def extract(self, image_path: str | os.PathLike[str]) -> Tensor: ...


class LAIONAestheticsDataset(AnnotatedImages[FeatureExtractor, Tensor], Dataset[tuple[Tensor, Tensor]]):
    """Pairs of an image's embedding, float32 (width,), and its score, float32 ().

    An embedding is computed when it is first asked for and kept in memory. Each worker process of a DataLoader would
    keep its own and, as batches are dealt out anew in each epoch, compute nearly all of them again: call
    `share_memory` first, and whichever process computes an embedding has computed it for all.
    """

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: SupportsIndex) -> tuple[Tensor, Tensor]:
        """Give embedding and score; a tensor is an index too. Raises IndexError, BrokenData."""
        position = range(len(self))[index.__index__()]
        embedding = self.embeddings.get(position)
        if embedding is None:
            embedding = self.embeddings[position] = self._embed(self.samples[position])
        return embedding, torch.tensor(self.samples[position].score, dtype=torch.float32)

    def share_memory(self) -> None:
        """Keep embeddings where all worker processes see them: 4 * width bytes a row of shared memory, at once."""
        self.embeddings = SharedEmbeddings(len(self), self.feature_extractor.width)

    def with_caption(self, word: str) -> Subset[tuple[Tensor, Tensor]]:
        """Give the samples whose caption contains `word`, in upper or lower case."""
        return Subset(self, with_caption(self.samples, word))

    def _embed(self, sample: Sample) -> Tensor:
        try:
            return self.feature_extractor.extract(self.img_dir / sample.name)
        except OSError as error:
            raise BrokenData(f"{self.annotations_file}, row {sample.row}: {error}") from error


class SharedEmbeddings(MutableMapping[int, Tensor]):
    """Embeddings of `length` rows in memory that forked and spawned processes share.

    No lock: a row is written by the one process whose batch it is in, and rows of an epoch are disjoint. Who finds a
    row unknown computes it again, with the same outcome.
    """

    def __init__(self, length: int, width: int) -> None:
        self._rows = torch.zeros(length, width)
        self._known = torch.zeros(length, dtype=torch.bool)  # true iff the row is wholly written
        for tensor in (self._rows, self._known):
            tensor.share_memory_()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def __getitem__(self, position: int) -> Tensor:
        if not self._known[position]:
            raise KeyError(position)
        row: Tensor = self._rows[position]
        return row.clone()

    def __setitem__(self, position: int, embedding: Tensor) -> None:
        self._rows[position] = embedding
        self._known[position] = True

    def __delitem__(self, position: int) -> None:
        self._known[position] = False

    def __iter__(self) -> Iterator[int]:
        return iter(self._known.nonzero().flatten().tolist())

    def __len__(self) -> int:
        return int(self._known.sum())


def split(
    samples: Dataset[tuple[Tensor, Tensor]], seed: int
) -> tuple[Subset[tuple[Tensor, Tensor]], Subset[tuple[Tensor, Tensor]]]:
    """Deal the samples out to training and validation, as `annotations.deal` does. Raises BrokenData below two."""
    train, valid = deal(len(samples), seed)  # type: ignore[arg-type]  # torch declares no __len__ for data sets
    return Subset(samples, train), Subset(samples, valid)
