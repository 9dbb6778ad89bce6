"""The processes that train together, as torchrun starts them; a process alone is a group of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, Subset
from torch.utils.data.distributed import DistributedSampler

Samples = Subset[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `size`; `local` counts on its machine. Each method is called by all of them."""

    rank: int = 0
    size: int = 1
    local: int = 0
    _told: set[int] = field(default_factory=set)  # positions whose embeddings all of them have

    @property
    def leads(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def together(self, module: nn.Module) -> nn.Module:
        """Give the module with its gradients averaged over all ranks."""
        return module if self.size == 1 else DistributedDataParallel(module)

    def sampler(self, samples: Samples, seed: int) -> DistributedSampler[Any] | None:
        """Deal out each epoch's samples; where they cannot be divided, some are given to two ranks."""
        if self.size == 1:
            return None
        return DistributedSampler(cast(Dataset[Any], samples), self.size, self.rank, seed=seed)

    def share_of(self, samples: Samples) -> Samples:
        """Give this rank's part, disjoint from the others'."""
        return Subset(samples, range(self.rank, len(samples), self.size))

    def total(self, values: Sequence[float]) -> list[float]:
        """Add up each of the values over all ranks."""
        if self.size == 1:
            return list(values)
        device = torch.device("cuda", self.local) if dist.get_backend() == "nccl" else torch.device("cpu")
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return cast(list[float], sums.tolist())

    def exchange(self, embeddings: MutableMapping[int, Tensor]) -> None:
        """Give the others what was computed here since the last time, so that no rank reads an image again."""
        if self.size == 1:
            return
        fresh = {position: embeddings[position] for position in embeddings if position not in self._told}
        everybodys: list[dict[int, Tensor]] = [{} for _ in range(self.size)]
        dist.all_gather_object(everybodys, fresh)
        for some in everybodys:
            embeddings.update({position: row for position, row in some.items() if position not in embeddings})
            self._told.update(some)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun has started, if it has; leave them at the end."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
