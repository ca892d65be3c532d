"""What a checkpoint tells of its run without being put to work: growths, evaluations, time.

Events and observations as JSON, and back.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from progtrain.account import Account
from progtrain.checkpoint.format import Checkpoint
from progtrain.clock import Moment
from progtrain.errors import CheckpointError
from progtrain.growth.edits import Edit
from progtrain.growth.inheritance import Inheritance
from progtrain.growth.widen_space import Slab
from progtrain.run import Event, Json, Observation, Phase


def state_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The document `state` of a checkpoint; raises `CheckpointError` where it is of no run."""
    state = checkpoint.documents.get("state")
    if not isinstance(state, dict) or {"model", "optimizer", "rng"} - set(checkpoint.tensors):
        raise CheckpointError(f"{checkpoint.path} is no checkpoint of a run.")
    return state


def events_of(checkpoint: Checkpoint) -> list[Event]:
    """Every growth of a checkpoint, those that were undone included."""
    return [event_from_json(item) for item in state_of(checkpoint)["events"]]


def edits_of(checkpoint: Checkpoint) -> list[Edit]:
    """The structural history of a checkpoint."""
    events = events_of(checkpoint)
    return [event.edit for event in events if event.phase is not Phase.ROLLED_BACK]


def history_of(checkpoint: Checkpoint) -> list[Observation]:
    """What the evaluations of a checkpoint's run have seen."""
    return [observation_from_json(item) for item in state_of(checkpoint)["history"]]


def moment_of(checkpoint: Checkpoint) -> Moment:
    return Moment(**state_of(checkpoint)["clock"])


def account_of(checkpoint: Checkpoint) -> Account:
    """What the compute until then went into."""
    state = state_of(checkpoint)
    return Account.from_json(state.get("account"), state["clock"]["flops"])


def fingerprint_of(checkpoint: Checkpoint) -> dict[str, str | int]:
    """What the bits of the run depended on: versions, device, threads, precision."""
    return dict(state_of(checkpoint)["fingerprint"])


def observation_to_json(o: Observation) -> Json:
    return {"moment": asdict(o.moment), "epoch": o.epoch, "metrics": dict(o.metrics)}


def observation_from_json(item: dict[str, Any]) -> Observation:
    return Observation(Moment(**item["moment"]), item["epoch"], item["metrics"])


def event_to_json(event: Event) -> Json:
    data: dict[str, Any] = {field.name: getattr(event, field.name) for field in fields(event)}
    plain: dict[str, Any] = {
        "edit": event.edit.to_json(),
        "moment": asdict(event.moment),
        "since": asdict(event.since),
        "phase": event.phase.name,
        "slabs": [slab.to_json() for slab in event.slabs],
        "blocks": list(event.blocks),
        "inserted": list(event.inserted),
        "heads": list(event.heads),
        "inherited": event.inherited.to_json() if event.inherited else None,
        "recovered": asdict(event.recovered) if event.recovered else None,
    }
    return {**data, **plain}


def event_from_json(item: dict[str, Any]) -> Event:
    typed: dict[str, Any] = {
        "edit": Edit.from_json(item["edit"]),
        "moment": Moment(**item["moment"]),
        "since": Moment(**item["since"]),
        "phase": Phase[item["phase"]],
        "slabs": tuple(Slab.from_json(slab) for slab in item["slabs"]),
        "blocks": tuple(item["blocks"]),
        "inserted": tuple(item["inserted"]),
        "heads": tuple(item["heads"]),
        "inherited": Inheritance.from_json(item["inherited"]) if item["inherited"] else None,
        "recovered": Moment(**item["recovered"]) if item["recovered"] else None,
    }
    return Event(**{**item, **typed})
