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
    from progtrain.growth.operators.deepen_identity import DeepenIdentity
    from progtrain.growth.operators.deepen_interleave import DeepenInterleave
    from progtrain.growth.operators.deepen_random import DeepenRandom
    from progtrain.growth.operators.deepen_stack import DeepenStack
    from progtrain.growth.operators.insert_adapter import InsertAdapter
    from progtrain.growth.operators.insert_attention import InsertAttention
    from progtrain.growth.operators.insert_branch import InsertBranch
    from progtrain.growth.operators.widen_duplicate import WidenDuplicate
    from progtrain.growth.operators.widen_random import WidenRandom
    from progtrain.growth.operators.widen_zero import WidenZero
    from progtrain.loading import load, read_inputs
    from progtrain.optimizers.grown_adam import GrownAdam, GrownAdamW
    from progtrain.tasks.export import export
    from progtrain.tasks.inspect import inspect
    from progtrain.warmups.cosine_ramp import CosineRamp
    from progtrain.warmups.exponential_ramp import ExponentialRamp
    from progtrain.warmups.linear_ramp import LinearRamp
    from progtrain.warmups.zero_init import ZeroInit

_HOMES = {
    "CosineRamp": "warmups.cosine_ramp",
    "DeepenIdentity": "growth.operators.deepen_identity",
    "DeepenInterleave": "growth.operators.deepen_interleave",
    "DeepenRandom": "growth.operators.deepen_random",
    "DeepenStack": "growth.operators.deepen_stack",
    "ExponentialRamp": "warmups.exponential_ramp",
    "GrownAdam": "optimizers.grown_adam",
    "GrownAdamW": "optimizers.grown_adam",
    "InsertAdapter": "growth.operators.insert_adapter",
    "InsertAttention": "growth.operators.insert_attention",
    "InsertBranch": "growth.operators.insert_branch",
    "LinearRamp": "warmups.linear_ramp",
    "Ramp": "growing",
    "WidenDuplicate": "growth.operators.widen_duplicate",
    "WidenRandom": "growth.operators.widen_random",
    "WidenZero": "growth.operators.widen_zero",
    "ZeroInit": "warmups.zero_init",
    "export": "tasks.export",
    "grow": "growing",
    "inspect": "tasks.inspect",
    "load": "loading",
    "read_inputs": "loading",
}
__all__ = [
    "CosineRamp",
    "DeepenIdentity",
    "DeepenInterleave",
    "DeepenRandom",
    "DeepenStack",
    "ExponentialRamp",
    "GrownAdam",
    "GrownAdamW",
    "InsertAdapter",
    "InsertAttention",
    "InsertBranch",
    "LinearRamp",
    "Ramp",
    "WidenDuplicate",
    "WidenRandom",
    "WidenZero",
    "ZeroInit",
    "__version__",
    "export",
    "grow",
    "inspect",
    "load",
    "read_inputs",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'progtrain' has no attribute {name!r}")
    return getattr(import_module(f"progtrain.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
