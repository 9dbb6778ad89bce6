"""Predict scores of images: python -m training.predict --weights predictor.pt IMAGE..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training.errors import UnreadableImage
from training.extractor import EfficientNetFeatureExtractor
from training.predictor import load


def main(words: Sequence[str] | None = None) -> int:
    """Print a line of score and path for each image; the exit status is 1 if one cannot be read."""
    parser = argparse.ArgumentParser("python -m training.predict", description="Predict images' aesthetic scores.")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="predictor.pt of a training")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    options = parser.parse_args(words)
    if not options.weights.is_file():
        parser.error(f"{options.weights}: no such file")
    predictor, backbone = load(options.weights)
    extractor = EfficientNetFeatureExtractor(backbone)
    status = 0
    for image in options.images:
        try:
            with torch.inference_mode():
                score = float(predictor(extractor.extract(image).unsqueeze(0)))
        except UnreadableImage as error:
            print(f"predict: {error}", file=sys.stderr)
            status = 1
        else:
            print(f"{score:.2f}\t{image}")
    return status


if __name__ == "__main__":
    sys.exit(main())
