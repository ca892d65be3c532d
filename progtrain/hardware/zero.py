"""Networks in shards by DeepSpeed: ZeRO-3 (Rajbhandari et al. 2020, arXiv:1910.02054).

DeepSpeed parts the parameters, brings them together around each module, and averages gradients
into parts of the same cut. It would lay the parts of a whole group behind each other and let an
optimizer keep one step count for all of them, which is wrong as soon as a network has grown. So its
own step has nothing to do here: our optimizers step the parts, in the memory where DeepSpeed keeps
them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from progtrain.flops import on_meta
from progtrain.hardware.shards import buffers_to, note

_BUCKET = 50_000_000  # numbers whose gradients are averaged at once
_JUST_IN_TIME = "deepspeed_shm_comm"  # compiled as it is first wanted; gloo does as well


@dataclass
class _Spread:
    """A network that DeepSpeed has taken over."""

    engine: Any
    parts: dict[str, nn.Parameter] = field(default_factory=lambda: dict[str, nn.Parameter]())
    gradients: dict[str, Tensor] = field(default_factory=lambda: dict[str, Tensor]())
    reached: set[str] = field(default_factory=lambda: set[str]())  # by gradients of this step


@dataclass(frozen=True)
class ZeroShards:
    """DeepSpeed's way: parameters are empty unless their module computes; their parts lie flat."""

    device: torch.device
    world: int
    home: torch.device
    bf16: bool = False  # DeepSpeed must enter torch's autocast itself: it leaves any other
    _spread: dict[int, _Spread] = field(default_factory=lambda: dict[int, _Spread]())

    def spread(self, model: nn.Module) -> None:
        """Shard a network in place, parameter by parameter; a plain one without values is kept
        aside. One that does not learn gets what its forward pass needs."""
        deepspeed, twin, settings = loaded(self.device.type), on_meta(model), self._settings(model)
        learning = [p for p in model.parameters() if p.requires_grad]
        deepspeed.zero.Init(module=model, config_dict_or_path=settings)
        buffers_to(model, self.device)
        optimizer = _Nothing(learning) if learning else None
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=settings, dist_init_required=False
        )
        mesh = init_device_mesh(self.device.type, (self.world,))
        made = self._spread[id(model)] = _Spread(engine)
        local: Any = deepspeed.utils
        for name, p in _named(model):
            if p.requires_grad:
                made.parts[name] = nn.Parameter(_part(p, local.safe_get_local_fp32_param(p), mesh))
                made.gradients[name] = _part(p, local.safe_get_local_grad(p), mesh)
                p.register_post_accumulate_grad_hook(partial(_note, made.reached, name))
            else:
                made.parts[name] = nn.Parameter(_part(p, p.ds_tensor, mesh), requires_grad=False)
        note(model, twin, made.parts)

    def called(self, model: nn.Module) -> nn.Module:
        """DeepSpeed's engine."""
        return self._spread[id(model)].engine

    def reduced(self, model: nn.Module) -> None:
        """Give the parts the gradients that have come."""
        spread = self._spread[id(model)]
        for name, part in spread.parts.items():
            part.grad = spread.gradients[name] if name in spread.reached else None
        spread.reached.clear()

    def stepped(self, model: nn.Module) -> None:
        """Let DeepSpeed compute with what the parts are now."""
        self._spread[id(model)].engine.step()

    def forget(self) -> None:
        """End DeepSpeed's engines and take their hooks off."""
        for each in self._spread.values():
            each.engine.destroy()
            _let_go(each.engine.module)
        self._spread.clear()

    def _settings(self, model: nn.Module) -> dict[str, Any]:
        """What DeepSpeed calls its configuration."""
        zero: dict[str, Any] = {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,  # what stays whole would have to be renewed
            "stage3_max_reuse_distance": 0,  # else all of a billion stays whole up to the backward
            "reduce_bucket_size": max(1, min(_BUCKET, sum(p.numel() for p in model.parameters()))),
            "memory_efficient_linear": False,  # it would replace F.linear of the whole process
        }
        cast = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        return {
            "train_micro_batch_size_per_gpu": 1,  # of no use: batches are ours
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            **({"torch_autocast": cast} if self.bf16 else {}),
        }


class _Nothing(torch.optim.Optimizer):
    """What DeepSpeed steps: nothing happens."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing."""


@lru_cache(maxsize=1)
def loaded(kind: str) -> Any:
    """DeepSpeed for devices of that kind: silent, and without what it would have to compile."""
    os.environ["DS_ACCELERATOR"] = kind
    old = r".*torch\.distributed\..* is deprecated"  # names that DeepSpeed still calls
    warnings.filterwarnings("ignore", old, FutureWarning)
    found: Any = import_module("deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    found.ops.__compatible_ops__[_JUST_IN_TIME] = False
    return found


def _let_go(model: nn.Module) -> None:
    """Take a network out of what DeepSpeed keeps of every one for as long as the process lives: the
    outermost modules, and which parameters go with a module."""
    zero = "deepspeed.runtime.zero"
    outermost: Any = import_module(f"{zero}.parameter_offload").FWD_MODULE_STACK
    outermost.remove(model)
    kind = import_module(f"{zero}.partitioned_param_coordinator").PartitionedParameterCoordinator
    for each in vars(kind).values():  # a decorator hides the cache of one
        for cell in getattr(each, "__closure__", None) or ():
            getattr(cell.cell_contents, "cache_clear", int)()


def _named(model: nn.Module) -> list[tuple[str, Any]]:
    """Parameters by name, with whatever DeepSpeed has hung on them."""
    return list(model.named_parameters())


def _part(parameter: Any, mine: Tensor, mesh: DeviceMesh) -> DTensor:
    """This process's part of a flat parameter, in the same memory and without what fills it up:
    DeepSpeed cuts into equal parts of ⌈n / processes⌉, as DTensors are cut."""
    count, rank = int(parameter.ds_numel), mesh.get_local_rank()
    held = max(0, min(len(mine), count - rank * len(mine)))
    told: Any = {"shape": torch.Size([count]), "stride": (1,), "run_check": False}
    return DTensor.from_local(mine.detach()[:held], mesh, [Shard(0)], **told)


def _note(reached: set[str], name: str, _: Tensor) -> None:
    reached.add(name)
