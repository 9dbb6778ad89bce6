"""Many different JPEGs of real subjects, cut from the few photographs that scikit-image ships."""

from __future__ import annotations

import importlib.util
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dagfs.errors import UsageError

MIN_BYTES, MAX_BYTES = 20 << 10, 150 << 10
"""Sizes of the images of a web-crawled data set such as LAION's."""
QUALITIES = (88, 94, 98, 78, 65, 50)
"""JPEG qualities in the order in which they are tried; those of smooth and of busy pictures come later."""
SQUIRREL_SHARE = 0.1

SUBJECTS = {
    "astronaut.png": "an astronaut in an orange suit",
    "brick.png": "an old brick wall",
    "camera.png": "a cameraman in a field",
    "chelsea.png": "a ginger cat looking up",
    "coffee.png": "a cup of espresso on a wooden table",
    "coins.png": "ancient coins on a dark cloth",
    "grass.png": "a lawn seen from above",
    "gravel.png": "a path of gravel",
    "hubble_deep_field.jpg": "galaxies in deep space",
    "motorcycle_left.png": "a red motorcycle in a workshop",
    "retina.jpg": "the back of an eye",
    "rocket.jpg": "a rocket at its launch pad at night",
}
STYLES = ("a photo of", "a close-up of", "a quiet picture of", "a postcard with", "an old print of", "a study of")
ENDINGS = ("", ", soft light", ", high detail", ", early morning", ", from a private collection")


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the demo: its JPEG bytes, its invented caption, and a score between 3 and 8."""

    name: str
    jpeg: bytes
    caption: str
    score: float


def pictures(count: int, seed: int) -> Iterator[Picture]:
    """Cut `count` different pictures, the same for the same seed. Raises UsageError if scikit-image is missing."""
    photographs = {name: _open(_photographs() / name) for name in SUBJECTS}
    for number in range(count):
        luck = random.Random(f"{seed}/{number}")  # noqa: S311 -- varies pictures, guards nothing  # nosec B311
        subject = luck.choice(list(SUBJECTS))
        jpeg, score = _cut(photographs[subject], luck)
        yield Picture(f"{number:06d}.jpg", jpeg, _caption(SUBJECTS[subject], luck), score)


def _photographs() -> Path:
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise UsageError("the demo needs scikit-image: pip install 'dagfs[demo]'")
    return Path(found.submodule_search_locations[0]) / "data"


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            pixels: Image.Image = image.convert("RGB")
            return pixels
    except FileNotFoundError:
        raise UsageError(f"this scikit-image has no {path.name}: pip install -U scikit-image") from None


def _cut(photograph: Image.Image, luck: random.Random) -> tuple[bytes, float]:
    """Give one JPEG within the limits of size, and its score; some crops are too smooth, then another is tried."""
    while True:
        crop = _crop(photograph, luck)
        for quality in QUALITIES:
            buffer = io.BytesIO()
            crop.save(buffer, "JPEG", quality=quality)
            if MIN_BYTES <= buffer.tell() <= MAX_BYTES:
                return buffer.getvalue(), score_of(crop)


def _crop(photograph: Image.Image, luck: random.Random) -> Image.Image:
    width, height = photograph.size
    share = luck.uniform(0.55, 0.95)
    left, top = luck.uniform(0, 1 - share) * width, luck.uniform(0, 1 - share) * height
    long_side = luck.randint(480, 720)
    scale = long_side / (share * max(width, height))
    size = (round(share * width * scale), round(share * height * scale))
    crop = photograph.resize(size, Image.Resampling.LANCZOS, (left, top, left + share * width, top + share * height))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if luck.random() < 0.5 else crop


def _caption(subject: str, luck: random.Random) -> str:
    squirrel = " with a squirrel" if luck.random() < SQUIRREL_SHARE else ""
    return f"{luck.choice(STYLES)} {subject}{squirrel}{luck.choice(ENDINGS)}"


def score_of(image: Image.Image) -> float:
    """Score a picture by its colourfulness (Hasler and Suesstrunk, 2003) and contrast, so that a model can learn it."""
    red, green, blue = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    against, beside = red - green, (red + green) / 2 - blue
    spread = np.hypot(against.std(), beside.std())
    strength = np.hypot(against.mean(), beside.mean())
    colourfulness = float(spread + 0.3 * strength) / 110
    contrast = float((red + green + blue).std()) / 3 / 80
    return round(3 + 3.5 * min(colourfulness, 1.0) + 1.5 * min(contrast, 1.0), 2)
