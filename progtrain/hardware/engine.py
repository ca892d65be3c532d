"""Where and in which precision a run computes: device, autocast, loss scaling, compilation."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from progtrain.errors import EnvironmentProblem, require
from progtrain.hardware.blocks import Forward, stand_in
from progtrain.hardware.compilation import (
    begin,
    check_mode,
    compiled,
    count_graphs,
    mode_of,
    replays,
)
from progtrain.hardware.group import Group
from progtrain.hardware.recomputation import recomputed, refuse_statistics
from progtrain.hardware.replicas import Replicas
from progtrain.hardware.shards import Shards, is_sharded
from progtrain.optimizers.group import OptimizerSet
from progtrain.withheld import Withheld, step_unless

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """What all kinds of hardware have in common."""

    precision: str
    compile: bool | str  # hardware/compilation.py
    deterministic: bool
    threads: int | None
    data_on_device: bool
    activation_checkpointing: bool = False  # hardware/recomputation.py
    sync_norm: bool = True  # of several processes: batch norm looks at the batch of all
    compile_ahead: bool = False  # ahead/


class Asked(Protocol):
    """What all kinds of hardware are asked for."""

    @property
    def precision(self) -> str: ...
    @property
    def compile(self) -> bool | str: ...
    @property
    def compile_ahead(self) -> bool: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def activation_checkpointing(self) -> bool: ...


def check(asked: Asked) -> None:
    """Raise `SettingError` for what no machine can do."""
    compile, again, threads = asked.compile, asked.activation_checkpointing, asked.threads
    check_mode(compile)
    ok = not (again and replays(mode_of(compile)))
    hint = "CUDA graphs would overwrite what the second forward needs; hardware.compile=true works."
    allowed = f"false with hardware.compile={compile}"
    require(ok, "activation_checkpointing", again, allowed, hint)
    ok = not asked.compile_ahead or mode_of(compile) is not None
    hint = "There is nothing to compile ahead. Try hardware.compile=true."
    require(ok, "compile_ahead", asked.compile_ahead, "false with hardware.compile=false", hint)
    known = ", ".join(PRECISIONS)
    require(asked.precision in PRECISIONS, "precision", asked.precision, f"one of {known}")
    ok = threads is None or 1 <= threads <= 1024
    require(ok, "threads", threads, "a whole number, 1 to 1024, or null")


class Engine:
    """One device; holds the loss scaler of fp16, whose state is part of a checkpoint."""

    def __init__(
        self,
        device: torch.device,
        settings: Settings,
        group: Group | None = None,
        shards: Shards | None = None,
    ) -> None:
        self.shards = shards  # how networks are sharded over processes; None: each has the whole
        self.home = device if shards is None else shards.home  # where whole networks lie
        self.device, self.settings, self.group = device, settings, group or Group()
        self.mode = mode_of(settings.compile)
        if self.mode is not None:
            begin()
        whole_batch = settings.sync_norm and not settings.compile
        self.replicas = Replicas(self.group, device, whole_batch, shards)
        self.came: Callable[[], bool] = lambda: False  # whether this process is asked to stop
        self._asked = False  # whether any is
        check_precision(device, settings.precision)
        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.use_deterministic_algorithms(settings.deterministic)
        # filling every new tensor would cost time and hide nothing that we compute with
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
        torch.backends.cudnn.deterministic = settings.deterministic
        torch.set_float32_matmul_precision("high" if settings.precision != "fp32" else "highest")
        torch.backends.cudnn.allow_tf32 = settings.precision != "fp32"
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 and fp16 autocast; nothing in fp32 and tf32, where even entering it costs."""
        if self.settings.precision not in ("bf16", "fp16"):
            return nullcontext()
        dtype = torch.float16 if self.settings.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Bring a whole network home and say how its blocks run; called again after every growth.

        Raises `ConfigError` where they cannot run so.
        """
        model.to(self.home)
        again = self.settings.activation_checkpointing
        if again:
            refuse_statistics(model)
        if again or self.mode is not None:
            stand_in(model, self.forward)
        return model

    def forward(self, kind: type[nn.Module]) -> Forward:
        """How blocks of a class run in training."""
        forward = kind.forward if self.mode is None else compiled(self.mode, kind.forward)
        return recomputed(forward) if self.settings.activation_checkpointing else forward

    def begin_step(self) -> None:
        """Before the first forward pass of a step, when nothing of the last one is needed."""
        if replays(self.mode):
            torch.compiler.cudagraph_mark_step_begin()

    def keep_gradients(self, optimizer: OptimizerSet) -> None:
        """Between the forward passes of one step: take gradients out of memory that is reused."""
        if replays(self.mode):
            for parameter in optimizer.parameters.values():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()
            torch.compiler.cudagraph_mark_step_begin()

    @property
    def graphs(self) -> int:
        """How many graphs torch.compile has made so far; 0 where nothing compiles."""
        return 0 if self.mode is None else count_graphs()

    def beat(self, seconds: float) -> float:
        """A step is over that took so long: its seconds, as all processes count them."""
        if self.group.world > 1:
            seconds, self._asked = self.group.beat(seconds, self.came())
        return seconds

    def interrupted(self) -> bool:
        """Whether the run is asked to stop; several processes learn of it with the same step."""
        return self._asked if self.group.world > 1 else self.came()

    def seconds_since(self, begun: float) -> float:
        """Wall-clock seconds since `begun` (`time.perf_counter`), as all processes count them."""
        return self.group.of_first(time.perf_counter() - begun)

    def free_memory(self) -> int | None:
        """Bytes that the device has left; None where nobody says."""
        if self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        meminfo = Path("/proc/meminfo")
        if not meminfo.is_file():
            return None
        lines = meminfo.read_text(encoding="utf-8").splitlines()
        free = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
        return int(free[0]) * 1024 if free else None

    def close(self) -> None:
        """Leave the other processes; the last call, where all has gone well.

        DDP's reducer goes first: as the last to hold a process group it would wait, with Python's
        lock, for a thread of the group that waits for that lock.
        """
        self.replicas.forget()
        if self.shards is not None:
            self.shards.forget()
        self.group.close()

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def reduced(self, model: nn.Module) -> None:
        """The backward passes of a step are over."""
        if self.shards is not None and is_sharded(model):
            self.shards.reduced(model)

    def stepped(self, model: nn.Module) -> None:
        """The optimizer's step is over, with all that was done about it."""
        if self.shards is not None and is_sharded(model):
            self.shards.stepped(model)

    def unscale(self, optimizer: OptimizerSet) -> None:
        """Bring gradients to their true size (fp16), before clipping or stepping."""
        for each in _stepping(optimizer):
            self.scaler.unscale_(each)

    def step(self, optimizer: OptimizerSet, withheld: Withheld = False) -> None:
        """Step every optimizer unless the step is withheld; fp16 skips a step whose gradients are
        not finite."""
        if withheld is True:
            self._give_up(optimizer)
            return
        for each in _stepping(optimizer):
            if withheld is False:
                self.scaler.step(each)
            else:
                step_unless(each, withheld)
        self.scaler.update()

    def _give_up(self, optimizer: OptimizerSet) -> None:
        """Let the scaler count a step that is not taken."""
        stepping = _stepping(optimizer) if self.scaler.is_enabled() else []
        for each in stepping:
            with suppress(RuntimeError):  # clipping has unscaled it already
                self.scaler.unscale_(each)
        if stepping:
            self.scaler.update()

    def fingerprint(self) -> dict[str, str | int]:
        """What the bits of a run depend on beside its configuration."""
        return {
            "torch": torch.__version__,
            "device": self.device.type,
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "precision": self.settings.precision,
            "processes": self.group.world,
        }

    def facts(self) -> str:
        """One line for the top of the screen."""
        where = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads"
        )
        words = [
            f"Python {platform.python_version()}",
            f"torch {torch.__version__}",
            where,
            self.settings.precision,
        ]
        words += [f"{self.group.world} processes"] if self.group.world > 1 else []
        return ", ".join(words + ([f"compiled ({self.mode})"] if self.mode else []))


def _stepping(optimizer: OptimizerSet) -> list[torch.optim.Optimizer]:
    """The optimizers that a gradient has reached; the scaler refuses one that is frozen whole."""
    return [
        each
        for each in optimizer.optimizers
        if any(p.grad is not None for group in each.param_groups for p in group["params"])
    ]


def check_precision(device: torch.device, precision: str) -> None:
    """Raise `EnvironmentProblem` where the device does not compute in it."""
    if device.type == "cuda":
        if precision == "bf16" and not torch.cuda.is_bf16_supported():
            raise EnvironmentProblem(
                "hardware.precision=bf16 is not supported on this GPU; use fp32 or fp16."
            )
    elif precision in ("tf32", "fp16"):
        raise EnvironmentProblem(
            f"hardware.precision={precision} needs a GPU; on a CPU use fp32 or bf16."
        )
