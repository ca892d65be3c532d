"""Layers chosen by a setting, and the checks that the models share."""

from __future__ import annotations

from torch import nn

from progtrain.errors import require

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
_NORMS_1D: dict[str, type[nn.Module]] = {
    "none": nn.Identity,
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


def activation_of(name: str) -> nn.Module:
    require(name in _ACTIVATIONS, "activation", name, "one of " + ", ".join(_ACTIVATIONS))
    return _ACTIVATIONS[name]()


def norm_1d(name: str, width: int) -> nn.Module:
    require(name in _NORMS_1D, "norm", name, "one of " + ", ".join(_NORMS_1D))
    return _NORMS_1D[name](width)


def whole(setting: str, value: int, least: int, most: int = 10**6) -> None:
    """Raise `SettingError` unless `least <= value <= most`."""
    require(least <= value <= most, setting, value, f"a whole number, {least} to {most}")


def image_channels(shape: object) -> int:
    """Channels of an image shape (channels, height, width)."""
    ok = isinstance(shape, list | tuple) and len(shape) == 3
    hint = "This model reads images; for data=text try model=gpt."
    require(ok, "shape", shape, "(channels, height, width)", hint)
    assert isinstance(shape, list | tuple)
    return int(shape[0])
