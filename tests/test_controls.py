"""What the controls of living growths cost in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from growth_kit import (
    a_machine,
    a_model,
    grow_now,
    make,
    one_thread,  # noqa: F401
    train,
)
from torch.utils._python_dispatch import TorchDispatchMode

from progtrain.contracts import Warmup
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.warmups.frozen_host import FrozenHost
from progtrain.warmups.lr import LearningRateWarmup

_WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.index_fill_.int_Scalar)


class NothingIsRead(TorchDispatchMode):
    """Refuses what would wait for a GPU: numbers of a tensor in Python, and indices from there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in _WAITS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "warmup", [FrozenHost("8steps"), LearningRateWarmup("8steps", zero_output=False)]
)
def test_a_warmup_waits_for_no_device_after_its_first_step(warmup: Warmup) -> None:
    machine = a_machine(a_model("mlp_batch"), make("optimizer", "adamw"), warmup)
    train(machine, 2)
    grow_now(machine, WidenRandom())
    train(machine, 2)
    run, controls = machine.run, machine.stepper.controls
    event = run.events[0]
    strong = {event.index: warmup.strength(event.phase, 0.5)}
    with torch.no_grad(), NothingIsRead():
        with controls.still_buffers():
            pass
        with controls.limited(run.optimizer, strong):
            for parameter in run.model.parameters():
                parameter.add_(1.0)
