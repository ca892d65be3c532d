"""A `Run` as tensors and plain JSON, and back.

Resume = build the start model → replay the edits → load tensors by name, with every name, shape
and dtype checked → optimizer, random numbers, clock, events. Nothing is loaded laxly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from progtrain.account import Account
from progtrain.checkpoint.format import Checkpoint
from progtrain.clock import Moment
from progtrain.contracts import OptimizerRecipe
from progtrain.errors import CheckpointError
from progtrain.growth.average import begin
from progtrain.growth.rollback import Before, copied_states
from progtrain.growth.transaction import births, sliced_tensors
from progtrain.hardware.engine import Engine
from progtrain.hardware.shards import shapes, stored, whole
from progtrain.optimizers.group import OptimizerSet
from progtrain.recent import Recent
from progtrain.record import (
    event_from_json,
    event_to_json,
    events_of,
    history_of,
    observation_to_json,
    state_of,
)
from progtrain.run import Event, Json, Phase, Run, StopReason, Teacher
from progtrain.transfer.teachers import device_of, placed

Named = Mapping[str, Tensor]
Tensors = dict[str, dict[str, Tensor]]


def pack(run: Run, engine: Engine, sizes: Mapping[str, int], data: str) -> tuple[Tensors, Json]:
    """All tensors by file and name, and everything else as JSON.

    `sizes` are the bytes of the run's row files, `data` the fingerprint of the training data.
    """
    states = {name: run.optimizer.state_of(name) for name in run.optimizer.parameters}
    first = engine.group.first
    tensors = _network(run.model, run.average, states, first) | {"rng": random_numbers(engine)}
    if run.recent is not None:
        tensors["recent"] = {"values": run.recent.values_2S}
    befores = {f"before_{index}": before for index, before in run.ways_back.items()}
    befores |= {f"anchor_{index}": before for index, before in enumerate(run.anchors)}
    for place, before in befores.items():
        kept = _network(before.model, before.average, before.states)
        tensors |= {f"{place}_{name}": group for name, group in kept.items()}
    for teacher in run.teachers:
        tensors[f"teacher_{teacher.growth}"] = dict(teacher.model.state_dict())
    if run.order is not None:
        tensors["curriculum"] = {"order": run.order}
    state: Json = {
        "clock": asdict(run.clock.now),
        "account": run.clock.account.to_json(),
        "events": [event_to_json(event) for event in run.events],
        "ways_back": {str(i): _before_to_json(before) for i, before in run.ways_back.items()},
        "anchors": [_before_to_json(before) for before in run.anchors],
        "teachers": [_teacher_to_json(teacher) for teacher in run.teachers],
        "history": [observation_to_json(o) for o in run.history],
        "memory": run.memory,
        "grown_out": run.grown_out.name if run.grown_out else None,
        "stopped": run.stopped.name if run.stopped else None,
        "scaler": engine.scaler.state_dict(),
        "files": dict(sizes),
        "data": data,
        "fingerprint": dict(engine.fingerprint()),
    }
    return tensors, state


def _network(
    model: nn.Module,
    average: nn.Module | None,
    states: Mapping[str, Mapping[str, Tensor]],
    first: bool = True,
) -> Tensors:
    shape = shapes(model)
    tensors = {"model": {n: _kept(t, shape[n], first) for n, t in stored(model).items()}}
    tensors["optimizer"] = {
        f"{name}/{key}": _kept(tensor, shape[name], first)
        for name, kept in states.items()
        for key, tensor in kept.items()
    }
    if average is not None:
        tensors["average"] = {n: _kept(t, shape[n], first) for n, t in stored(average).items()}
    return tensors


def _kept(tensor: Tensor, shape: torch.Size, first: bool) -> Tensor:
    """A tensor as a checkpoint has it: one that lies in shards whole, in the CPU's memory; only the
    first process keeps it, to store it."""
    if not isinstance(tensor, DTensor):
        return tensor
    full = whole(tensor).reshape(shape)
    return full.cpu() if first else full.new_empty(0)


def unpack(run: Run, checkpoint: Checkpoint, engine: Engine, recipe: OptimizerRecipe) -> None:
    """Bring `run`, whose model has been grown by `edits_of`, to the checkpoint's state."""
    state = state_of(checkpoint)
    load_weights(run.model, checkpoint.tensors["model"])
    if run.average is not None:  # an average that was not kept begins with the weights of now
        load_weights(run.average, checkpoint.tensors.get("average", run.model.state_dict()))
    run.events[:] = events_of(checkpoint)
    run.optimizer = _optimizer(run.model, run.events, checkpoint.tensors["optimizer"], recipe)
    befores = partial(_before, run, checkpoint, engine, recipe)
    for index, kept in state["ways_back"].items():
        run.ways_back[int(index)] = befores(kept, f"before_{index}")
    anchors = enumerate(state.get("anchors", ()))
    run.anchors = [befores(kept, f"anchor_{index}") for index, kept in anchors]
    if "recent" in checkpoint.tensors:
        run.recent = Recent(checkpoint.tensors["recent"]["values"].to(engine.device))
    run.teachers = [
        _teacher(run, kept, checkpoint.tensors.get(f"teacher_{kept['growth']}", {}), engine)
        for kept in state["teachers"]
    ]
    run.clock.now = Moment(**state["clock"])
    run.clock.account = Account.from_json(state.get("account"), run.clock.now.flops)
    run.order = checkpoint.tensors.get("curriculum", {}).get("order")
    run.history[:] = history_of(checkpoint)
    run.memory = state["memory"]
    run.grown_out = StopReason[state["grown_out"]] if state["grown_out"] else None
    if state["scaler"]:
        engine.scaler.load_state_dict(state["scaler"])
    set_random_numbers(checkpoint.tensors["rng"], engine)


def differences(checkpoint: Checkpoint, engine: Engine) -> list[str]:
    """What the bits depend on and what has changed since the checkpoint, in words."""
    then, now = state_of(checkpoint)["fingerprint"], engine.fingerprint()
    return [f"{key} {then.get(key)} → {now[key]}" for key in now if then.get(key) != now[key]]


def file_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    return dict(state_of(checkpoint)["files"])


def data_fingerprint(checkpoint: Checkpoint) -> str:
    return str(state_of(checkpoint)["data"])


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Every tensor by its name, shape and type; raises `CheckpointError` where one differs."""
    own = model.state_dict()
    wrong = [
        f"{name}: {_kind(tensors.get(name))} in the checkpoint, {_kind(own.get(name))} in the model"
        for name in sorted({*own, *tensors})
        if _kind(tensors.get(name)) != _kind(own.get(name))
    ]
    if wrong:
        raise CheckpointError(
            "The checkpoint is of another network: " + "; ".join(wrong[:5]) + ". Resume with the"
            " configuration it was made with."
        )
    model.load_state_dict(dict(tensors), strict=True)


def _kind(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{tuple(tensor.shape)} {tensor.dtype}"


def _optimizer(
    model: nn.Module, events: Sequence[Event], tensors: Named, recipe: OptimizerRecipe
) -> OptimizerSet:
    """The optimizer of `model`, grown by `events`, with its state."""
    parameters = dict(model.named_parameters())
    edits = [event.edit for event in events if event.phase is not Phase.ROLLED_BACK]
    optimizer = recipe.build(parameters, sliced_tensors(edits))
    optimizer.divide(births(parameters, events))
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, field = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"The checkpoint's optimizer knows {name}, the network does not.")
        on_device = tensor if tensor.ndim == 0 else tensor.to(parameters[name].device)
        states.setdefault(name, {})[field] = on_device
    for name, state in states.items():
        optimizer.load(name, state)
    return optimizer


def _before(
    run: Run,
    checkpoint: Checkpoint,
    engine: Engine,
    recipe: OptimizerRecipe,
    kept: dict[str, Any],
    place: str,
) -> Before:
    """The network before a growth that may still be undone, or of an anchor."""
    names = ("model", "optimizer", "average")
    tensors = {name: checkpoint.tensors.get(f"{place}_{name}", {}) for name in names}
    events = tuple(event_from_json(item) for item in kept["events"])
    model = run.rebuilt(event.edit for event in events if event.phase is not Phase.ROLLED_BACK)
    load_weights(model, tensors["model"])
    engine.place(model)
    average = begin(model) if tensors["average"] else None
    if average is not None:
        load_weights(average, tensors["average"])
    optimizer = _optimizer(model, events, tensors["optimizer"], recipe)
    states = copied_states(optimizer)
    then = Moment(**kept.get("moment", {})), Account.from_json(kept.get("account"))
    return Before(model, average, optimizer, states, events, kept["params"], kept["flops"], *then)


def _teacher(run: Run, kept: dict[str, Any], tensors: Named, engine: Engine) -> Teacher:
    """A network that teaches, of the shape it had; what it was blending is put on by `blend`."""
    earlier = run.events[: kept["growth"]]
    model = run.rebuilt(e.edit for e in earlier if e.phase is not Phase.ROLLED_BACK)
    placed(model, device_of(kept["device"], engine), kept["precision"])
    load_weights(model, tensors)
    typed: dict[str, Any] = {
        "since": Moment(**kept["since"]),
        "events": tuple(event_from_json(item) for item in kept["events"]),
        "model": model,
    }
    return Teacher(**{**kept, **typed})


def _teacher_to_json(teacher: Teacher) -> Json:
    kept: dict[str, Any] = {
        field.name: getattr(teacher, field.name)
        for field in fields(teacher)
        if field.name != "model"
    }
    events = [event_to_json(event) for event in teacher.events]
    return {**kept, "since": asdict(teacher.since), "events": events}


def _before_to_json(before: Before) -> Json:
    events: list[Json] = [event_to_json(event) for event in before.events]
    sizes: dict[str, Json] = {"params": before.params, "flops": before.flops}
    then: dict[str, Json] = {
        "moment": asdict(before.moment),
        "account": before.account.to_json(),
    }
    return {"events": events, **sizes, **then}


def random_numbers(engine: Engine) -> dict[str, Tensor]:
    """Where every source of random numbers stands."""
    _, words, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor(numpy_state[1].astype(np.int64)),
        "numpy_rest": torch.tensor(numpy_state[2:], dtype=torch.float64),
    }
    if engine.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(engine.device)
    return states


def set_random_numbers(states: Mapping[str, Tensor], engine: Engine) -> None:
    """Put every source of random numbers back."""
    torch.set_rng_state(states["torch"])
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    if engine.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], engine.device)
