"""Small image files for tests, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photos(root: Path, each: int = 12, classes: tuple[str, ...] = ("cats", "dogs", "owls")) -> Path:
    """PNGs of different sizes whose colour tells their class."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(classes):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 80, (9 + number % 3, 12, 3))
            pixels[..., label % 3] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root
