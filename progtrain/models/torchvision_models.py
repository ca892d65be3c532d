"""Any network for classification that torchvision has, by its name there.

The network is torchvision's own module, from its own builder; only what the data demand is
changed: channels of the first convolution, classes of the last layer.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from progtrain.errors import ConfigError, EnvironmentProblem, SettingError, did_you_mean, require
from progtrain.models.layers import image_channels

_SIDES = (32, 64, 96, 128, 224, 299)  # of images, for a hint
_OURS = ("num_classes", "weights", "progress", "aux_logits")  # arguments that are settings
_FILES = (".pth", ".pt", ".safetensors")
_PLAIN = {  # their second outputs are for training them alone, their first weights take minutes
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


class Torchvision:
    """`Torchvision(...)` is the network itself: nothing of ours stands around it."""

    def __new__(
        cls,
        shape: Sequence[int],  # channels, height, width
        num_classes: int,
        name: str = "resnet18",
        weights: str | None = None,  # DEFAULT, a name of torchvision's, a file; null: fresh ones
        arguments: Mapping[str, object] | None = None,  # of torchvision's builder
    ) -> Any:
        image_channels(shape)
        known = models.list_models(module=models)
        near = get_close_matches(name, known, 5, cutoff=0.5)
        hint = f"{did_you_mean(name, known)} Near: {', '.join(near or known[:5])}.".strip()
        allowed = f"one of torchvision's {len(known)} networks for classification"
        require(name in known, "name", name, allowed, hint)
        given = {**_PLAIN.get(name, {}), **_sizes(name, shape), **(arguments or {})}
        wrong = [key for key in _OURS if key in (arguments or {})]
        allowed = "arguments of torchvision's builder other than " + ", ".join(_OURS)
        require(not wrong, "arguments", dict(arguments or {}), allowed)
        bare = torch.empty(0).is_meta  # built to be looked at: no values, no downloads
        if weights is None:
            model = _built(name, shape, given, num_classes=num_classes)
        elif _is_file(weights):
            model = _from_file(name, shape, given, Path(weights).expanduser(), bare)
        else:
            model = _pretrained(name, shape, given, weights, bare)
        _fit(model, int(shape[0]), num_classes)
        if bare:
            _check_size(model, name, shape)
        return model


def _sizes(name: str, shape: Sequence[int]) -> dict[str, object]:
    """What networks for one size of image are told."""
    sides = tuple(int(side) for side in shape[1:])
    if name.startswith("maxvit"):
        return {"input_size": sides}
    if not name.startswith("vit_"):
        return {}
    patch = int(name.rpartition("_")[2])
    if sides[0] != sides[1] or sides[0] % patch:
        nearest = patch * max(1, round(sides[0] / patch))
        raise ConfigError(
            f"{name} reads square images whose side is a multiple of {patch}; data.shape is"
            f" {list(shape)}. Use images such as {[shape[0], nearest, nearest]}, or model=vit."
        )
    return {"image_size": sides[0]}


def _built(name: str, shape: Sequence[int], given: Mapping[str, object], **more: object) -> Any:
    """The network from torchvision's builder; what that refuses is told by our names."""
    try:
        return models.get_model_builder(name)(**given, **more)
    except TypeError as error:
        allowed = f"arguments of torchvision's {name}"
        raise SettingError("arguments", dict(given), allowed, f"({error})") from error
    except ValueError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{name} cannot be built for data.shape={list(shape)}: {told}") from None


def _is_file(weights: str) -> bool:
    return weights.endswith(_FILES) or "/" in weights


def _pretrained(
    name: str, shape: Sequence[int], given: Mapping[str, object], weights: str, bare: bool
) -> Any:
    """The network with weights that torchvision downloads once and keeps."""
    kinds = models.get_model_weights(name)
    names = [*kinds.__members__]
    chosen = weights.removeprefix(f"{kinds.__name__}.")
    allowed = f"null, a file ({', '.join(_FILES)}) or one of {', '.join(names)}"
    require(chosen in names, "weights", weights, allowed, did_you_mean(chosen, names).strip())
    entry = kinds[chosen]
    if bare:
        return _built(name, shape, given, num_classes=len(entry.meta["categories"]))
    plain = _PLAIN.get(name, {})
    own = {key: value for key, value in given.items() if key not in plain}
    try:
        model = _built(name, shape, own, weights=entry)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"model.weights={weights} cannot be loaded: {told[:300]}") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"model.weights={weights}: {entry.url} could not be downloaded"
            f" ({type(error).__name__}: {error}). Download it where there is a network, and set"
            " model.weights to the path of the file; or train from model.weights=null."
        ) from error
    if plain:
        model.aux_logits = False
        for auxiliary in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, auxiliary):
                setattr(model, auxiliary, None)
    return model


def _from_file(
    name: str, shape: Sequence[int], given: Mapping[str, object], file: Path, bare: bool
) -> Any:
    """The network with the weights of a file, whatever channels and classes those are for."""
    if not file.is_file():
        raise ConfigError(f"model.weights: no file {file} (looked from {Path.cwd()}).")
    model = _built(name, shape, given)
    if bare:
        return model
    state = _read(file)
    if name in _PLAIN:
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    stem, head = (state.get(f"{layer}.weight") for layer in _ends(model))
    if stem is not None and head is not None and stem.ndim == 4:
        _fit(model, stem.shape[1], head.shape[0])
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"model.weights={file} is of another network: {told[:300]}") from None
    return model


def _read(file: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        if file.suffix == ".safetensors":
            state: object = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"model.weights={file} cannot be read: {told}") from None
    except safetensors.SafetensorError as error:
        raise ConfigError(f"model.weights={file} cannot be read: {error}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f"model.weights={file} is no state dict: no tensors by name.")
    return dict(state)


def _ends(model: nn.Module) -> tuple[str, str]:
    """Names of the first convolution and of the last layer, which gives the logits."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    first = next(name for name, layer in layers if isinstance(layer, nn.Conv2d))
    return first, layers[-1][0]


def _fit(model: Any, channels: int, classes: int) -> None:
    """Put fresh layers where the first or the last one is of another size."""
    first, last = _ends(model)
    stem, head = model.get_submodule(first), model.get_submodule(last)
    if stem.in_channels != channels:
        _replace(model, first, _like(stem, channels, stem.out_channels))
        if hasattr(model, "transform_input"):
            model.transform_input = False  # it is for three colours
    if isinstance(head, nn.Linear) and head.out_features != classes:
        _replace(model, last, nn.Linear(head.in_features, classes))
    elif isinstance(head, nn.Conv2d) and head.out_channels != classes:  # squeezenet
        _replace(model, last, _like(head, head.in_channels, classes))


def _like(conv: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    assert not isinstance(padding, str)  # torchvision writes numbers
    return nn.Conv2d(
        inputs,
        outputs,
        (kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(padding[0], padding[1]),
        bias=conv.bias is not None,
    )


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)


def _check_size(model: nn.Module, name: str, shape: Sequence[int]) -> None:
    """Refuse images that the network cannot read, by a forward pass without values."""
    problem = _refusal(model, shape)
    if not problem:
        return
    sides = [side for side in _SIDES if side > min(shape[1:])]
    fits = (s for s in sides if not _refusal(model, (shape[0], s, s)))
    side = next(fits, None)
    hint = f"Images of {side} × {side} would do." if side else "Choose another model.name."
    raise ConfigError(f"{name} cannot read images of data.shape={list(shape)}: {problem} {hint}")


def _refusal(model: nn.Module, shape: Sequence[int]) -> str:
    """What the network says of such images; nothing where it reads them."""
    model.eval()
    try:
        with torch.no_grad():
            model(torch.empty(2, *shape, device="meta"))
    except NotImplementedError:  # it cannot be tried without values
        return ""
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).splitlines()[0].rstrip('.')}."
    finally:
        model.train()
    return ""
