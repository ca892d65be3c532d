"""A `Run` as tensors and plain JSON, and back.

Resume = build the start model → replay the edits → load tensors by name, with every name, shape
and dtype checked → optimizer, random numbers, clock, events. Nothing is loaded laxly.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from progtrain.checkpoint.format import Checkpoint
from progtrain.clock import Moment
from progtrain.contracts import OptimizerRecipe
from progtrain.errors import CheckpointError
from progtrain.growth.edits import Edit
from progtrain.growth.transaction import sliced_tensors
from progtrain.growth.widen_space import Slab
from progtrain.hardware.engine import Engine
from progtrain.run import Event, Json, Observation, Phase, Run, StopReason

Tensors = dict[str, dict[str, Tensor]]


def pack(run: Run, engine: Engine, sizes: Mapping[str, int], data: str) -> tuple[Tensors, Json]:
    """All tensors by file and name, and everything else as JSON.

    `sizes` are the bytes of the run's row files, `data` the fingerprint of the training data.
    """
    optimizer = {
        f"{name}/{key}": tensor
        for name in run.optimizer.parameters
        for key, tensor in run.optimizer.state_of(name).items()
    }
    tensors = {"model": dict(run.model.state_dict()), "optimizer": optimizer, "rng": _rng(engine)}
    if run.average is not None:
        tensors["average"] = dict(run.average.state_dict())
    if run.order is not None:
        tensors["curriculum"] = {"order": run.order}
    state: Json = {
        "clock": asdict(run.clock.now),
        "events": [_event_to_json(event) for event in run.events],
        "history": [_observation_to_json(o) for o in run.history],
        "memory": run.memory,
        "grown_out": run.grown_out.name if run.grown_out else None,
        "stopped": run.stopped.name if run.stopped else None,
        "scaler": engine.scaler.state_dict(),
        "files": dict(sizes),
        "data": data,
        "fingerprint": dict(engine.fingerprint()),
    }
    return tensors, state


def edits_of(checkpoint: Checkpoint) -> list[Edit]:
    """The structural history of a checkpoint."""
    return [Edit.from_json(event["edit"]) for event in _state(checkpoint)["events"]]


def unpack(run: Run, checkpoint: Checkpoint, engine: Engine, recipe: OptimizerRecipe) -> None:
    """Bring `run`, whose model has been grown by `edits_of`, to the checkpoint's state."""
    state = _state(checkpoint)
    _load_weights(run.model, checkpoint.tensors["model"])
    if run.average is not None:  # an average that was not kept begins with the weights of now
        _load_weights(run.average, checkpoint.tensors.get("average", run.model.state_dict()))
    run.events[:] = [_event_from_json(item) for item in state["events"]]
    parameters = dict(run.model.named_parameters())
    run.optimizer = recipe.build(parameters, sliced_tensors(run.edits))
    _load_optimizer(run, checkpoint.tensors["optimizer"], engine.device)
    run.clock.now = Moment(**state["clock"])
    run.order = checkpoint.tensors.get("curriculum", {}).get("order")
    run.history[:] = [_observation_from_json(item) for item in state["history"]]
    run.memory = state["memory"]
    run.grown_out = StopReason[state["grown_out"]] if state["grown_out"] else None
    if state["scaler"]:
        engine.scaler.load_state_dict(state["scaler"])
    _set_rng(checkpoint.tensors["rng"], engine)


def differences(checkpoint: Checkpoint, engine: Engine) -> list[str]:
    """What the bits depend on and what has changed since the checkpoint, in words."""
    then, now = _state(checkpoint)["fingerprint"], engine.fingerprint()
    return [f"{key} {then.get(key)} → {now[key]}" for key in now if then.get(key) != now[key]]


def file_sizes(checkpoint: Checkpoint) -> dict[str, int]:
    return dict(_state(checkpoint)["files"])


def data_fingerprint(checkpoint: Checkpoint) -> str:
    return str(_state(checkpoint)["data"])


def _state(checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.documents.get("state")
    if not isinstance(state, dict) or {"model", "optimizer", "rng"} - set(checkpoint.tensors):
        raise CheckpointError(f"{checkpoint.path} is no checkpoint of a run.")
    return state


def _load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
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


def _load_optimizer(run: Run, tensors: Mapping[str, Tensor], device: torch.device) -> None:
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, field = key.rpartition("/")
        if name not in run.optimizer.parameters:
            raise CheckpointError(f"The checkpoint's optimizer knows {name}, the network does not.")
        on_device = tensor if tensor.ndim == 0 else tensor.to(device)
        states.setdefault(name, {})[field] = on_device
    for name, state in states.items():
        run.optimizer.load(name, state)


def _rng(engine: Engine) -> dict[str, Tensor]:
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


def _set_rng(states: Mapping[str, Tensor], engine: Engine) -> None:
    torch.set_rng_state(states["torch"])
    gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss, cached = states["numpy_rest"].tolist()
    keys = states["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), cached))
    if engine.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], engine.device)


def _observation_to_json(o: Observation) -> Json:
    return {"moment": asdict(o.moment), "epoch": o.epoch, "metrics": dict(o.metrics)}


def _observation_from_json(item: dict[str, Any]) -> Observation:
    return Observation(Moment(**item["moment"]), item["epoch"], item["metrics"])


def _event_to_json(event: Event) -> Json:
    data: dict[str, Any] = {field.name: getattr(event, field.name) for field in fields(event)}
    plain: dict[str, Any] = {
        "edit": event.edit.to_json(),
        "moment": asdict(event.moment),
        "since": asdict(event.since),
        "phase": event.phase.name,
        "slabs": [slab.to_json() for slab in event.slabs],
        "blocks": list(event.blocks),
        "inserted": list(event.inserted),
    }
    return {**data, **plain}


def _event_from_json(item: dict[str, Any]) -> Event:
    typed: dict[str, Any] = {
        "edit": Edit.from_json(item["edit"]),
        "moment": Moment(**item["moment"]),
        "since": Moment(**item["since"]),
        "phase": Phase[item["phase"]],
        "slabs": tuple(Slab.from_json(slab) for slab in item["slabs"]),
        "blocks": tuple(item["blocks"]),
        "inserted": tuple(item["inserted"]),
    }
    return Event(**{**item, **typed})
