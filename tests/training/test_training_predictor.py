"""The predictor learns, is saved and comes back the same; its curves become a picture."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from training.command import Epoch
from training.plots import plot_losses
from training.predictor import AestheticsPredictor, evaluate, fit, load, save


def learnable(count: int = 128) -> TensorDataset:
    luck = torch.Generator().manual_seed(5)
    embeddings = torch.rand(count, 16, generator=luck)
    return TensorDataset(embeddings, 5 + 4 * (embeddings[:, 0] - embeddings[:, 1]))


def test_the_loss_falls_below_that_of_the_mean_score() -> None:
    torch.manual_seed(0)
    samples = learnable()
    batches = DataLoader(samples, batch_size=32, shuffle=True)
    predictor = AestheticsPredictor(16, float(samples.tensors[1].mean()))
    epochs = list(fit(predictor, batches, batches, 30))
    assert epochs[-1].train_loss < epochs[0].train_loss / 4
    assert epochs[-1].valid_loss < float(samples.tensors[1].var()) / 4
    assert all(0 <= epoch.first_batch_seconds <= epoch.seconds for epoch in epochs)


def test_evaluation_is_the_mean_over_samples_whatever_the_batches_are() -> None:
    samples = learnable(10)
    predictor = AestheticsPredictor(16)
    expected = float(((predictor.eval()(samples.tensors[0]) - samples.tensors[1]) ** 2).mean().detach())
    for size in (1, 4, 10):
        assert abs(evaluate(predictor, DataLoader(samples, size)) - expected) < 1e-4


def test_a_batch_of_one_can_be_trained_on() -> None:
    batches = DataLoader(learnable(3), batch_size=2)
    (epoch,) = fit(AestheticsPredictor(16), batches, batches, 1)
    assert epoch.train_loss > 0


def test_saved_weights_predict_the_same(tmp_path: Path) -> None:
    predictor = AestheticsPredictor(16, 5.5).eval()
    save(predictor, "efficientnet-lite0", tmp_path / "predictor.pt")
    again, backbone = load(tmp_path / "predictor.pt")
    embeddings = torch.rand(4, 16)
    assert torch.equal(again(embeddings), predictor(embeddings))
    assert backbone == "efficientnet-lite0"


def test_the_curves_are_a_picture_that_shows_them(tmp_path: Path) -> None:
    epochs = [Epoch(1 / n, 2 / n, 1.0, 0.1) for n in (1, 2, 3)]
    plot_losses(epochs, 0.5, tmp_path / "losses.png")
    plot_losses([Epoch(1.0, 2.0, 1.0, 0.1)], 0.5, tmp_path / "other.png")
    with Image.open(tmp_path / "losses.png") as image, Image.open(tmp_path / "other.png") as other:
        assert image.format == "PNG"
        assert image.width >= 640
        assert image.height >= 400
        assert len(image.convert("RGB").getcolors(1 << 16) or ()) > 10
        assert image.convert("RGB").tobytes() != other.convert("RGB").tobytes()
