"""Teachers in a run: made at a growth, asked at every step, let go when their time is over.

A teacher is the network before a growth: in evaluation mode, without gradients, with what it was
still blending in at the alphas of that moment. It is a copy that nothing else holds, so no bit of
it changes. A checkpoint stores its tensors; a resume builds the network by the edits until then.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from progtrain.contracts import Warmup
from progtrain.flops import forward_flops, num_params
from progtrain.growth.controls import WARMING, Controls
from progtrain.growth.grow import uncompiled
from progtrain.hardware.engine import Engine
from progtrain.run import Event, Run, Teacher
from progtrain.setup import Setup
from progtrain.transfer.teaching import Teaching

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def teach(run: Run, setup: Setup, host: nn.Module, events: Sequence[Event]) -> Teacher | None:
    """Let `host`, the network before the last growth, teach from now on, where the transfer says
    so; `events` are the growths as they were then."""
    teaching, event = setup.transfer.teaching, run.events[-1]
    if teaching is None:
        return None
    device = device_of(teaching.device, setup.engine)
    model = placed(copy.deepcopy(uncompiled(host)), device, teaching.precision)
    teacher = Teacher(
        growth=event.index,
        stage=event.stage,
        since=run.clock.now,
        model=model,
        events=tuple(e for e in events if e.phase in WARMING),
        flops=forward_flops(model, run.probe.x),
        device=teaching.device,
        precision=teaching.precision,
    )
    blend(teacher, setup.warmup)
    run.teachers = [*run.teachers, teacher][-(teaching.kept or 0) :]
    return teacher


def device_of(device: str, engine: Engine) -> torch.device:
    """Where a teacher computes."""
    return torch.device("cpu") if device == "cpu" else engine.device


def placed(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """The network on its device, in its precision, as nothing that trains."""
    return model.to(device, _DTYPES.get(precision)).requires_grad_(False).eval()


def blend(teacher: Teacher, warmup: Warmup) -> None:
    """Hold what the teacher was blending in at the alphas it had."""
    Controls(teacher.model, teacher.events, warmup)


def release(run: Run, setup: Setup) -> None:
    """Let go of every teacher whose time is over."""
    teaching = setup.transfer.teaching
    length = teaching.lasts if teaching else None
    if length is not None:
        run.teachers = [t for t in run.teachers if run.clock.progress(t.since, length) < 1]


def forget(run: Run, growth: int) -> None:
    """Let go of the teachers of growth `growth` and of later ones: they have been undone."""
    run.teachers = [teacher for teacher in run.teachers if teacher.growth < growth]


@torch.no_grad()
def answer(teacher: Teacher, x: Tensor) -> Tensor:
    """Logits of a teacher for inputs (batch, ...), on the device of `x`, in float32 at least."""
    first = next(teacher.model.parameters())
    own = teacher.precision != "same"
    given = x.to(first.device, first.dtype if own and x.is_floating_point() else None)
    with torch.autocast(first.device.type, enabled=False) if own else nullcontext():
        logits = teacher.model(given)
    return (logits.float() if own else logits).to(x.device)


def num_bytes(model: nn.Module, precision: str) -> int:
    """Bytes of a teacher's weights and buffers."""
    held = [*model.parameters(), *model.buffers()]
    half = precision in _DTYPES
    sizes = (2 if half and t.is_floating_point() else t.element_size() for t in held)
    return sum(t.numel() * size for t, size in zip(held, sizes, strict=True))


def taught_by(networks: Sequence[nn.Module], teaching: Teaching | None) -> int:
    """Bytes of the teachers that such `networks` make, oldest first; at most, as some go early."""
    if teaching is None:
        return 0
    return sum(num_bytes(each, teaching.precision) for each in networks[-(teaching.kept or 0) :])


def described(teacher: Teacher) -> str:
    """What a teacher costs, in one line."""
    model = teacher.model
    first = next(model.parameters())
    precision = str(first.dtype).removeprefix("torch.") if teacher.precision == "same" else ""
    size = num_bytes(model, teacher.precision) / 2**20
    return (
        f"teacher {teacher.stage}: {num_params(model):,} parameters, {size:,.2f} MiB on"
        f" {first.device.type} in {precision or teacher.precision},"
        f" {teacher.flops:,.0f} FLOPs a sample"
    )
