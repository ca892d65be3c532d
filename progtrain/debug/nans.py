"""Find where a number stops being finite: the first module whose output is not, or the operation
whose gradient is not.

Every module's output is looked at, in training, evaluation, trials and growths alike, so a step
waits for the device many times. Backward passes run in torch's anomaly detection.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import set_detect_anomaly
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from progtrain.debug.none import NoDebug
from progtrain.errors import ConfigError, DivergedError
from progtrain.run import Run, StopReason

if TYPE_CHECKING:
    from progtrain.build import Parts
    from progtrain.debug.around import Around
    from progtrain.machine import Machine

_FUNCTION = re.compile(r"Function '(\w+)' returned nan values")


@dataclass(frozen=True)
class Nans(NoDebug):
    """Stops at the first number that is not finite and names the module, step and stage."""

    backward: bool = True  # look at gradients too (torch's anomaly detection, several times slower)

    def trimmed(self, parts: Parts) -> Parts:
        if getattr(parts.hardware, "compile", False):
            raise ConfigError(
                "debug=nans looks into modules, and compiled ones cannot be looked into:"
                " add hardware.compile=false."
            )
        return parts

    def drive(self, machine: Machine, around: Around) -> StopReason:
        # fp16 lets gradients overflow on purpose and skips such steps
        scaled = machine.setup.engine.scaler.is_enabled()
        if self.backward and scaled:
            machine.setup.reporter.noted(machine.run, "debug=nans: gradients of fp16 may overflow")
        with looking(machine.run), gradients_checked(machine.run, self.backward and not scaled):
            reason = machine.go()
        around.lines.append(f"nans: every number was finite in {machine.run.clock.step:,} steps.")
        return reason


@dataclass
class _Watch:
    """Which modules are running; the first of them is the network."""

    run: Run
    running: list[nn.Module] = field(default_factory=lambda: list[nn.Module]())

    def enter(self, module: nn.Module, inputs: Any) -> None:
        self.running.append(module)

    def leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        network = self.running[0]
        if self.running.pop() is not module:
            self.running.clear()  # an earlier pass has ended in an error
            return
        # a traced forward must not see that it is looked at
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
            good = finite(output)
        if not good:
            raise DivergedError(self._told(network, module, inputs))

    def _told(self, network: nn.Module, module: nn.Module, inputs: Any) -> str:
        name = next((n for n, each in network.named_modules() if each is module), "")
        called = f"Module {name!r}" if name else "The network"
        return (
            f"{called} ({type(module).__name__}) has an output that is not finite {when(self.run)}:"
            f" {self._cause(module, inputs)}"
        )

    def _cause(self, module: nn.Module, inputs: Any) -> str:
        own = [n for n, tensor in _tensors(module) if not bool(tensor.isfinite().all())]
        if own:
            return f"its {own[0]} is not. Look at the step before: try a smaller optimizer.lr."
        if not finite(inputs):
            return "its input is not, and no module has made that. Look at the data."
        return "its input and weights are. Look at what it computes: a division, a log, an exp."


def when(run: Run) -> str:
    """`in step 12, stage wider`: the coming step, and what grew last."""
    stage = run.events[-1].stage if run.events else "start"
    fresh = bool(run.events) and run.events[-1].moment.step == run.clock.step
    return f"in step {run.clock.step + 1:,}, stage {stage}" + (
        ", right after it has grown" if fresh else ""
    )


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def finite(value: Any) -> bool:
    """Whether every floating number in a tensor, or in tuples, lists and dicts of them, is."""
    if isinstance(value, Tensor):
        without = value.is_meta or not value.is_floating_point()  # one that is only counted
        return without or bool(value.detach().isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, tuple | list) else True


@contextmanager
def looking(run: Run) -> Generator[None]:
    """Look at the output of every module that runs, whatever network it is part of."""
    watch = _Watch(run)
    hooks = [
        register_module_forward_pre_hook(watch.enter),
        register_module_forward_hook(watch.leave),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def gradients_checked(run: Run, wanted: bool) -> Generator[None]:
    """Let backward passes stop at the first gradient that is not a number."""
    if not wanted:
        yield
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with set_detect_anomaly(True):
                yield
        except RuntimeError as error:
            found = _FUNCTION.search(str(error))
            if found is None:
                raise
            line = _line_of(str(caught[-1].message)) if caught else ""
            raise DivergedError(
                f"The gradient of {found[1].removesuffix('Backward0')} is not a number"
                f" {when(run)}{line}. Its forward pass was finite: look for a root, a division or"
                " a log at 0."
            ) from error


def _line_of(trace: str) -> str:
    """Where in the network the operation was called, out of anomaly detection's traceback."""
    lines = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', trace)
    own = [each for each in lines if "/torch/" not in each[0]]
    return f", called in {own[-1][0]}:{own[-1][1]} ({own[-1][2]})" if own else ""
