"""torch.compile of a network that grows: blocks are compiled, and what was compiled stays.

A block is compiled by its class and shapes, so that one graph serves every block like it, at any
depth and after any growth; a growth compiles only the shapes that it brings. Each shape has a graph
of its own, as graphs for any shape are slower. Evaluation and whatever else only looks runs
eagerly: it would need graphs of its own.

Hooks on a block run outside its graph. Those on its layers are inside, and dynamo is told to guard
them: by default it takes it that hooks never change, and a ramp would be left out or never end.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from progtrain.errors import require
from progtrain.hardware.blocks import Forward

MODES = ("default", "reduce-overhead", "max-autotune")
_GRAPHS = 1024  # of one block's code before dynamo gives up and runs it eagerly, with a log line


def check_mode(compile: bool | str) -> None:
    allowed = "false, true, " + ", ".join(MODES)
    hint = "true is default; reduce-overhead replays CUDA graphs, which helps small networks."
    require(isinstance(compile, bool) or compile in MODES, "compile", compile, allowed, hint)


def mode_of(compile: bool | str) -> str | None:
    """torch's word for a setting; None where nothing is compiled."""
    if isinstance(compile, bool):
        return "default" if compile else None
    return compile


def replays(mode: str | None) -> bool:
    """Whether outputs of blocks lie in memory that the next step's CUDA graphs overwrite."""
    return mode in ("reduce-overhead", "max-autotune")


def begin() -> None:
    """Forget what earlier jobs of this process compiled, and set dynamo's switches."""
    torch.compiler.reset()
    config: Any = torch._dynamo.config  # pyright: ignore[reportPrivateUsage]
    config.recompile_limit = _GRAPHS
    config.accumulated_recompile_limit = 8 * _GRAPHS
    config.skip_nnmodule_hook_guards = False
    # with it kernels of convolutions come in a layout that torch 2.11's backward refuses
    inductor: Any = import_module("torch._inductor.config")
    inductor.layout_optimization = False


def compiled(mode: str, forward: Forward) -> Forward:
    """A block's forward, compiled anew for every shape that it meets."""
    return torch.compile(forward, mode=mode, dynamic=False)


def count_graphs() -> int:
    """How many graphs dynamo has made in this process."""
    counted = torch._dynamo.utils.counters["stats"]  # pyright: ignore[reportPrivateUsage]
    return int(counted["unique_graphs"])
