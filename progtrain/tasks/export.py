"""`task=export` and `progtrain.export`: a stored network for programs that do not know progtrain.

    state_dict      weights by name, as safetensors: for code that builds the network itself
    torch_export    a program (`.pt2`) that `torch.export.load` runs, for batches of any size

TorchScript is deprecated in torch and not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from torch import Tensor, nn

from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.read import read
from progtrain.errors import CheckpointError, ConfigError
from progtrain.growth.baked import bake
from progtrain.inputs import Inputs
from progtrain.loading import inputs_of, network
from progtrain.record import events_of
from progtrain.report.units import written
from progtrain.settings import EXPORTS, Exporting

if TYPE_CHECKING:
    from progtrain.command_line.from_checkpoint import Request

_FILES = {"state_dict": "model.safetensors", "torch_export": "model.pt2"}


def export(
    path: str | Path,
    out: str | Path,
    format: str = "state_dict",
    *,
    average: bool = False,
    plugins: Sequence[str] = (),
) -> Path:
    """Write the network of checkpoint `path` to the file `out`; the file.

    What is written computes what `load` gives: alphas of ramps that were not over are in it, and
    inputs are normalised before (`read_inputs`). Raises `CheckpointError` and `ConfigError`, the
    latter for a network that torch.export cannot follow.
    """
    if format not in EXPORTS:
        raise ConfigError(f"format must be one of {', '.join(EXPORTS)}, got {format!r}.")
    saved, out = read(Path(path)), Path(out)
    model = network(saved, plugins, average)
    return _exported(saved, model, out, format)


def run(request: Request) -> int:
    """Write `model.safetensors` or `model.pt2`; 0."""
    options: Exporting = request.made("export")
    model = network(request.saved, request.plugins, options.average, request.answers)
    out = request.claim() / _FILES[options.format]
    print(*written([_exported(request.saved, model, out, options.format)]))
    return 0


def _exported(saved: Checkpoint, model: nn.Module, out: Path, format: str) -> Path:
    left = bake(model, events_of(saved))
    model.requires_grad_(False)
    if format == "state_dict":
        blends = [line for line in left if "Blended" in line or "hook" in line]
        if blends:
            raise CheckpointError(
                f"At this step the network is in the middle of a ramp ({'; '.join(blends[:3])}),"
                " which weights alone cannot say. Export a later step, or format=torch_export."
            )
        _write(
            out, {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
        )
    else:
        _write_program(model, inputs_of(saved), out)
    return out


def _write(out: Path, tensors: dict[str, Tensor]) -> None:
    part = out.with_name(f".{out.name}.part")
    safetensors.torch.save_file(tensors, part, metadata={"format": "pt"})
    part.replace(out)


def _write_program(model: nn.Module, inputs: Inputs, out: Path) -> None:
    """A program for normalised samples (batch, ...)."""
    kind = torch.int64 if inputs.reads_tokens else next(model.parameters()).dtype
    example = torch.zeros(2, *inputs.shape, dtype=kind)
    try:
        program = torch.export.export(
            model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # torch raises many kinds, most of them private
        raise ConfigError(
            f"torch.export cannot follow this {type(model).__name__}:"
            f" {str(error).strip().splitlines()[0]}. Use format=state_dict."
        ) from error
    part = out.with_name(f".part.{out.name}")  # torch insists on the ending
    torch.export.save(program, part)
    part.replace(out)
