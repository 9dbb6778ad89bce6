"""A small network that predicts a score from an embedding, and the loop that trains it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from tqdm import tqdm  # type: ignore[import-untyped]  # its types are a package of their own

from training.command import Epoch
from training.ranks import Ranks

HIDDEN = 64
LEARNING_RATE = 1e-3
Batches = DataLoader[tuple[Tensor, Tensor]]


class AestheticsPredictor(nn.Module):
    """Maps embeddings (N, width) to scores (N,); `offset` is what it predicts before it knows better."""

    offset: Tensor

    def __init__(self, width: int, offset: float = 0.0) -> None:
        super().__init__()
        # Embeddings of different backbones have different scales.
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, embeddings: Tensor) -> Tensor:
        scores: Tensor = self.layers(embeddings).squeeze(-1) + self.offset
        return scores

    @property
    def device(self) -> torch.device:
        return self.offset.device


def fit(
    predictor: AestheticsPredictor,
    train: Batches,
    valid: Batches,
    epochs: int,
    ranks: Ranks | None = None,
) -> Iterator[Epoch]:
    """Train with Adam on the mean squared error, and yield after each epoch; losses are those of all ranks."""
    ranks = ranks or Ranks()
    model, device = ranks.together(predictor), predictor.device
    optimizer = torch.optim.Adam(predictor.parameters(), LEARNING_RATE)
    for number in range(1, epochs + 1):
        started = time.perf_counter()
        arrivals: list[float] = []
        bar = tqdm(train, desc=f"epoch {number}/{epochs}", unit="batch", disable=None if ranks.leads else True)
        if isinstance(train.sampler, DistributedSampler):
            train.sampler.set_epoch(number)
        total = count = 0.0
        for embeddings, scores in bar:
            arrivals.append(time.perf_counter())
            loss = _step(model, optimizer, embeddings.to(device), scores.to(device))
            total, count = total + loss * len(scores), count + len(scores)
            bar.set_postfix(loss=f"{total / count:.3f}")
        total, count = ranks.total([total, count])
        valid_loss = evaluate(predictor, valid, ranks)
        yield Epoch(total / count, valid_loss, time.perf_counter() - started, arrivals[0] - started)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, embeddings: Tensor, scores: Tensor) -> float:
    model.train()
    loss = nn.functional.mse_loss(model(embeddings), scores)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
    optimizer.step()
    return loss.item()


def evaluate(predictor: AestheticsPredictor, batches: Batches, ranks: Ranks | None = None) -> float:
    """Give the mean squared error over all samples of all ranks."""
    predictor.eval()
    total = count = 0.0
    with torch.inference_mode():
        for embeddings, scores in batches:
            errors = predictor(embeddings.to(predictor.device)) - scores.to(predictor.device)
            total, count = total + float((errors**2).sum()), count + len(scores)
    total, count = (ranks or Ranks()).total([total, count])
    return total / count


def save(predictor: AestheticsPredictor, backbone: str, path: Path) -> None:
    """Save the weights, and the backbone whose embeddings they were trained on."""
    state = {name: tensor.cpu() for name, tensor in predictor.state_dict().items()}
    torch.save({"backbone": backbone, "weights": state}, path)


def load(path: Path) -> tuple[AestheticsPredictor, str]:
    """Give a saved predictor, ready to predict on the CPU, and the backbone that it wants."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    predictor = AestheticsPredictor(saved["weights"]["layers.0.weight"].numel())
    predictor.load_state_dict(saved["weights"])
    return predictor.eval(), saved["backbone"]
