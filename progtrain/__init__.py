"""progtrain grows neural networks while they train and reports whether growing paid.

From Python: `load`, `read_inputs`, `inspect`, `export` for what a run has stored, and `grow` for a
training loop of one's own (docs/python.md). They are imported when they are first asked for, as
torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from progtrain.growing import Ramp, grow
    from progtrain.loading import load, read_inputs
    from progtrain.optimizers.grown_adam import GrownAdam, GrownAdamW
    from progtrain.tasks.export import export
    from progtrain.tasks.inspect import inspect

_HOMES = {
    "load": "loading",
    "read_inputs": "loading",
    "inspect": "tasks.inspect",
    "export": "tasks.export",
    "grow": "growing",
    "Ramp": "growing",
    "GrownAdam": "optimizers.grown_adam",
    "GrownAdamW": "optimizers.grown_adam",
}
__all__ = [
    "GrownAdam", "GrownAdamW", "Ramp", "__version__", "export", "grow", "inspect", "load",
    "read_inputs",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'progtrain' has no attribute {name!r}")
    return getattr(import_module(f"progtrain.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
