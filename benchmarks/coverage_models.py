"""The networks that `coverage.py` grows: torchvision's classifiers, one of every timm family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import nn

LARGE = 400e6  # parameters; above, float32 instead of float64
AFFORDABLE = 120e6  # of a timm family the shortest name with at most so many parameters
CLASSES = 10


def names(suite: str) -> list[str]:
    if suite == "torchvision":
        return torchvision.models.list_models(module=torchvision.models)
    from timm.models import _registry

    families: dict[str, list[str]] = {}
    for name, family in sorted(_registry._model_to_module.items()):
        families.setdefault(family, []).append(name)
    return [_smallest(found) for _, found in sorted(families.items())]


def _smallest(found: list[str]) -> str:
    ordered = sorted(found, key=lambda name: (len(name), name))
    for name in ordered[:20]:
        with torch.device("meta"):
            try:
                size = count(build("timm", name, {}))
            except Exception:
                continue
        if size <= AFFORDABLE:
            return name
    return ordered[0]


def build(suite: str, name: str, options: dict[str, Any]) -> nn.Module:
    if suite == "torchvision":
        # as model=torchvision builds them: heads that only training has are left out
        plain = {"aux_logits": False, "init_weights": False}
        own = plain if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, num_classes=CLASSES, **own, **options)
    import timm

    return timm.create_model(name, num_classes=CLASSES, **options)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _sizes(suite: str, name: str) -> Iterator[tuple[dict[str, Any], int]]:
    """Options of the builder and image sizes, cheapest first."""
    argument = "image_size" if suite == "torchvision" else "img_size"
    own = {"maxvit_t": {"input_size": (224, 224)}, "vit_h_14": {argument: 56}}
    if (suite == "torchvision" and name.startswith("vit_")) or name in own:
        options = own.get(name, {argument: 64})
        yield options, 56 if name == "vit_h_14" else 224 if name == "maxvit_t" else 64
        return
    yield {}, 75 if "inception" in name else 64
    for size in (64, 96, 128):
        yield {argument: size}, size
    for size in (96, 112, 128, 160, 192, 224, 240, 256, 288, 384, 448, 512):
        yield {}, size


def smallest(suite: str, name: str) -> tuple[nn.Module, int]:
    """The model and the smallest image that it takes."""
    reason: Exception | None = None
    made: dict[str, nn.Module] = {}
    for options, size in _sizes(suite, name):
        try:
            if str(options) not in made:
                made = {str(options): build(suite, name, options)}
            model = made[str(options)].eval()
            dtype = next(model.parameters()).dtype
            with torch.no_grad():
                out = model(torch.randn(2, 3, size, size, dtype=dtype))
            if out.shape == (2, CLASSES):
                return model, size
        except Exception as error:  # too small: whatever the model says
            reason = error
    raise RuntimeError(f"it runs at no image size: {reason}")
