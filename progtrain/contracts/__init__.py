"""What progtrain asks of each replaceable part: one Protocol a Hydra group.

A part is a frozen dataclass of hyperparameters; it needs no base class and no registration. A
user's own class works from a user's own YAML (docs/extending.md).
"""

from progtrain.contracts.growing import (
    Growth,
    Monitor,
    Operator,
    Settle,
    StatePolicy,
    Strength,
    Transfer,
    Trigger,
    Warmup,
)
from progtrain.contracts.training import (
    AtGrowth,
    Augment,
    Curriculum,
    Data,
    Debug,
    Hardware,
    Logger,
    Loss,
    Metric,
    Mix,
    OptimizerRecipe,
    Shape,
)

__all__ = [
    "AtGrowth",
    "Augment",
    "Curriculum",
    "Data",
    "Debug",
    "Growth",
    "Hardware",
    "Logger",
    "Loss",
    "Metric",
    "Mix",
    "Monitor",
    "Operator",
    "OptimizerRecipe",
    "Settle",
    "Shape",
    "StatePolicy",
    "Strength",
    "Transfer",
    "Trigger",
    "Warmup",
]
