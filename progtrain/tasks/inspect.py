"""`task=inspect`, `progtrain.inspect`: all that a checkpoint says of its network and its past."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.tree import Tree
from torch import nn

from progtrain.checkpoint.format import FORMAT, Checkpoint
from progtrain.checkpoint.read import read
from progtrain.checkpoint.verify import verify
from progtrain.command_line.stored import settings_of
from progtrain.errors import ConfigError
from progtrain.inputs import Inputs
from progtrain.loading import network
from progtrain.record import account_of, events_of, fingerprint_of, history_of, moment_of
from progtrain.report.cost import by_word, lines
from progtrain.report.files import strict
from progtrain.report.units import written
from progtrain.run import Event, Json, Observation

if TYPE_CHECKING:
    from progtrain.account import Account
    from progtrain.clock import Moment
    from progtrain.command_line.from_checkpoint import Request

RESULT = "inspect.json"
_WIDE = 120  # columns where the output is no terminal
_EVALUATIONS = 12  # rows on the screen
_SAME = 2  # equal neighbours that the tree folds into one line


@dataclass(frozen=True)
class Inspection:
    """A checkpoint, read."""

    path: Path
    moment: Moment
    account: Account  # what its FLOPs and seconds went into
    config: dict[str, Any]  # the settings of the run
    inputs: Inputs | None  # None: written by an older progtrain
    events: list[Event]  # every growth, those that were undone included
    history: list[Observation]  # every evaluation
    versions: dict[str, str | int]  # of torch, device, threads, precision
    hashes: dict[str, str]  # SHA-256 by file
    sizes: dict[str, int]  # bytes by file
    model: nn.Module | None  # None: its class is in a package that was not named
    missing: str = ""  # why there is none

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last evaluation."""
        return dict(self.history[-1].metrics) if self.history else {}

    def to_json(self) -> dict[str, Json]:
        return {
            "checkpoint": str(self.path),
            "format": FORMAT,
            "moment": asdict(self.moment),
            "cost": by_word(self.account, self.moment),
            "model": self.missing or [*_modules(self.model)] if self.model else self.missing,
            "params": _params(self.model) if self.model else None,
            "growth": [_growth(event) for event in self.events],
            "evaluations": [
                {**asdict(seen.moment), "epoch": seen.epoch, **seen.metrics}
                for seen in self.history
            ],
            "inputs": self.inputs.to_json() if self.inputs else None,
            "versions": {**self.versions},
            "files": {
                name: {"sha256": digest, "bytes": self.sizes[name]}
                for name, digest in self.hashes.items()
            },
            "config": self.config,
        }


def inspect(path: str | Path, *, plugins: Sequence[str] = ()) -> Inspection:
    """Read a checkpoint (a run's directory or one of its `step_…`); raises `CheckpointError`."""
    return inspected(read(Path(path)), plugins)


def inspected(saved: Checkpoint, plugins: Sequence[str] = ()) -> Inspection:
    manifest = verify(saved.path)
    model, missing = None, ""
    try:
        model = network(saved, plugins)
    except ConfigError as error:
        missing = str(error)
    told = saved.documents.get("inputs")
    return Inspection(
        saved.path,
        moment_of(saved),
        account_of(saved),
        settings_of(saved),
        Inputs.from_json(told) if told is not None else None,
        events_of(saved),
        history_of(saved),
        fingerprint_of(saved),
        {name: entry.sha256 for name, entry in manifest.files.items()},
        {name: entry.size for name, entry in manifest.files.items()},
        model,
        missing,
    )


def run(request: Request) -> int:
    """Print it, write `inspect.json`; 0."""
    found = inspected(request.saved, request.plugins)
    directory = request.claim()
    content = strict(found.to_json(), indent=2) + "\n"
    (directory / RESULT).write_text(content, encoding="utf-8")
    console = Console(highlight=False, markup=False, emoji=False)
    show(found, console if console.is_terminal else Console(width=_WIDE, highlight=False))
    print("", *written([directory / RESULT]), sep="\n")
    return 0


def show(found: Inspection, console: Console) -> None:
    """Architecture, growths, evaluations, cost, files."""
    moment = found.moment
    console.print(
        f"{found.path}: step {moment.step:,}, {moment.samples:,} samples, {moment.flops:.3g} FLOPs",
        soft_wrap=True,  # so that the path can be copied
    )
    if found.model is None:
        console.print(f"No network: {found.missing}")
    else:
        console.print(tree(found.model))
    if found.inputs is not None:
        console.print(f"inputs: {_inputs(found.inputs)}")
    console.print(_growths(found.events) if found.events else "no growth")
    console.print(_evaluations(found.history))
    for line in lines(found.account):
        console.print(line, soft_wrap=True)
    for name, digest in found.hashes.items():
        console.print(f"{digest}  {name} ({found.sizes[name]:,} bytes)", soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in found.versions.items()))


def tree(model: nn.Module) -> Tree:
    """Modules with their parameters; of equal neighbours the first alone."""
    root = Tree(f"{type(model).__name__}: {_params(model):,} parameters")
    _grow(root, model)
    return root


def _grow(node: Tree, module: nn.Module) -> None:
    children = list(module.named_children())
    while children:
        name, child = children.pop(0)
        same = [name]
        while children and _alike(children[0][1], child):
            same.append(children.pop(0)[0])
        named = f"{name} to {same[-1]}, each" if len(same) > _SAME else name
        if len(same) == _SAME:
            named = f"{name} and {same[-1]}, each"
        _grow(node.add(f"{named} {_described(child)}"), child)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules look the same, sizes included."""
    return repr(one) == repr(other) and _shapes(one) == _shapes(other) and _params(one) > 0


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in module.parameters()]


def _described(module: nn.Module) -> str:
    own = {name: p.shape for name, p in module.named_parameters(recurse=False)}
    words = [f"{name} {'×'.join(map(str, size)) or '1'}" for name, size in own.items()]
    count = _params(module)
    return ", ".join([type(module).__name__, *words]) + (
        f": {count:,}" if count and next(module.children(), None) else ""
    )


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _modules(model: nn.Module) -> Iterator[dict[str, Json]]:
    for name, module in model.named_modules():
        own = {n: list(p.shape) for n, p in module.named_parameters(recurse=False)}
        parameters: dict[str, Json] = {n: [*shape] for n, shape in own.items()}
        count = _params(module)
        kind = type(module).__name__
        yield {"name": name, "class": kind, "parameters": parameters, "params": count}


def _inputs(inputs: Inputs) -> str:
    told = "×".join(map(str, inputs.shape))
    names = f" ({', '.join(inputs.classes[:5])}{', …' * (len(inputs.classes) > 5)})"
    codec = f", {type(inputs.codec).__name__}" if inputs.codec is not None else ""
    classes = f"{inputs.num_classes:,} classes{names if inputs.classes else ''}"
    return f"{told}, {classes}, {inputs.normalise}{codec}"


def _growth(event: Event) -> dict[str, Json]:
    return {
        "stage": event.stage,
        "step": event.moment.step,
        "cause": event.cause,
        "what": event.edit.describe(),
        "phase": event.phase.value,
        "alpha": event.alpha,
        "params_before": event.params_before,
        "params_after": event.params_after,
        "promised": event.promised,
        "preservation_error": event.preservation_error,
        "metric_before": event.metric_before,
        "metric_after": event.metric_after,
        "undone": event.undone or None,
    }


def _growths(events: Sequence[Event]) -> Table:
    table = _table("growth", "step", "adds", "parameters", "output moved", "phase")
    for event in events:
        phase = event.phase.value + (f", alpha {event.alpha:.3g}" if event.alpha != 1 else "")
        table.add_row(
            event.stage,
            f"{event.moment.step:,}",
            event.edit.brief(),
            f"{event.params_before:,} → {event.params_after:,}",
            f"{event.preservation_error:.1e}",
            phase,
        )
    return table


def _evaluations(history: Sequence[Observation]) -> Table:
    """The last evaluations."""
    seen = history[-_EVALUATIONS:]
    names = list(dict.fromkeys(name for each in seen for name in each.metrics))
    table = _table("step", *names)
    for each in seen:
        values = [f"{each.metrics[name]:.4g}" if name in each.metrics else "" for name in names]
        table.add_row(f"{each.moment.step:,}", *values)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table
