"""Finding tensors of a network by name, and names by pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from torch import Tensor, nn


def owner(model: nn.Module, tensor: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter or buffer, and the attribute's name."""
    module, _, attribute = tensor.rpartition(".")
    return model.get_submodule(module), attribute


def holders_by_tensor(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Every module that holds a parameter or buffer, by the tensor's id; several share some."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for name, held in (
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        ):
            found.setdefault(id(held), []).append((module, name))
    return found


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that name, outside of autograd."""
    module, attribute = owner(model, name)
    return getattr(module, attribute).detach()


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Names that match a shell pattern; several patterns are separated by `|`."""
    patterns = pattern.split("|")
    return [n for n in names if any(fnmatch.fnmatchcase(n, p.strip()) for p in patterns)]
