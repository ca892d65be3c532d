"""What is wrong with a plan and can be told before any data are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from progtrain.clock import Duration
from progtrain.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from progtrain.contracts import Growth
    from progtrain.settings import Training

Size = Mapping[str, int | float]


def late_stages(growth: Growth, train: Training) -> list[str]:
    """Declared stages that come after the end."""
    from progtrain.growth.plan_checks import beyond_the_end

    stages = getattr(growth, "stages", None)
    if not isinstance(stages, Mapping):
        return []
    return list(beyond_the_end(stages, Duration.parse(train.duration, "train.duration")))


def refused_networks(
    factory: Callable[[Size], nn.Module],
    sizes: Sequence[Size],
    max_params: int | None,
    recomputes: bool = False,
) -> list[str]:
    """Build the first and the full network without memory, for what their classes refuse; the
    first must be within `stop.max_params`, and where blocks are to be recomputed none may have
    statistics."""
    import torch

    from progtrain.growth.plan_checks import start_too_large
    from progtrain.hardware.recomputation import refuse_statistics

    problems: list[str] = []
    for size in sizes:
        try:
            with torch.device("meta"):
                model = factory(size)
            if recomputes:
                refuse_statistics(model)
        except ConfigError as error:
            problems.append(str(error))
            continue
        except Exception:
            continue  # not every network can be built on meta; the run says what is wrong
        params = sum(p.numel() for p in model.parameters())
        large = start_too_large(params, max_params) if size is sizes[0] else None
        problems += [large] if large else []
    return list(dict.fromkeys(problems))
