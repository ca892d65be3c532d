"""Runs in this process: compose, build, train, and everything of a run that must be repeatable.

`parts("growth=schedule", "train.clip=1")` are the parts of a tiny run, `train` runs them and
returns what a comparison needs. Two runs are equal where `differences` finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from progtrain import build, job
from progtrain.build import Parts
from progtrain.command_line.names import SEVERAL
from progtrain.errors import Interrupted
from progtrain.hardware.shards import whole
from progtrain.report.reporter import PlannedStage
from progtrain.run import Event, Observation, Phase, Run

CONF = Path(__file__).parent.parent / "conf"

# 49 samples to train on, so that batches cross the borders of epochs; 24 steps are not a multiple
# of an evaluation's distance, so that the last one is made at the stop
TINY = (
    "data=synthetic",
    "data.samples=65",
    "data.shape=[1,4,4]",
    "model=mlp",
    "model.width=8",
    "train.batch_size=8",
    "train.duration=24steps",
    "train.evaluate_every=5steps",
    "checkpoint.every=100%",
    "hardware=cpu",
    "hardware.threads=1",
    "report.page=false",
)


def graphs_alone(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Around tests: graphs are made, and run as they are, so that no compiler takes its time."""
    compile: Callable[..., Any] = torch.compile

    def made(model: Any, *, mode: str, dynamic: bool) -> Any:
        return compile(model, backend="eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", made)
    yield
    torch.compiler.reset()


def options(group: str) -> list[str]:
    """Every option of a group of `conf/`."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
@cache
def groups() -> tuple[str, ...]:
    """Every group of `conf/`, such as `growth` and `growth/choice`."""
    found = {path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml")}
    return tuple(sorted(found - {"."}))


def some(cases: Sequence[Any], every: int) -> list[Any]:
    """Cases of a test of which only one in `every` is quick; the rest run with the slow ones."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
        for index, case in enumerate(cases)
        for marks in [[pytest.mark.slow] if index % every else []]
    ]


def parts(*overrides: str) -> Parts:
    """The parts of a tiny run; later overrides win."""
    return _built(overrides)


@cache
def _built(overrides: tuple[str, ...]) -> Parts:
    # what the parts refuse is not asked beforehand: it would build everything twice
    with mock.patch.object(build, "refusals", lambda _: []):
        return build.build(config(*overrides))


def config(*overrides: str) -> DictConfig:
    """What Hydra composes (test_trace holds it to that), in a tenth of the time."""
    chosen: dict[str, str] = {}
    leaves: list[str] = []
    other_data = any(text.startswith("data=") for text in overrides)
    sizeless = "model=torchvision" in overrides
    tiny = [text for text in TINY if not (other_data and text.startswith("data."))]
    tiny = [text for text in tiny if not (sizeless and text.startswith("model."))]
    for text in (*tiny, *overrides):
        key, _, value = text.partition("=")
        if key in groups():
            chosen[key] = value
        else:
            leaves.append(text)
    composed = _defaults().copy()
    chosen = {**brought(chosen), **chosen}
    for group in sorted(chosen):
        OmegaConf.update(
            composed, group.replace("/", "."), _chosen(group, chosen[group]), merge=False
        )
    for text in leaves:
        given = OverridesParser.create().parse_override(text)
        value = given.value()
        with _opened(composed, given.is_add() or isinstance(value, dict)):
            OmegaConf.update(composed, given.key_or_group, value, merge=True)
    return composed


def _chosen(group: str, value: str) -> DictConfig:
    """The option of a group; where several may be chosen, each under its name."""
    if group not in SEVERAL:
        return option(group, value)
    names = value.strip("[]").split(",")
    return OmegaConf.create({name: option(group, name) for name in names})


def option(group: str, name: str) -> DictConfig:
    """One YAML of `conf/`, with the options it chooses itself."""
    node = _loaded(group, name).copy()
    for default in node.pop("defaults", []):
        for inner, choice in default.items():
            if not inner.startswith("override "):
                node[inner] = option(f"{group}/{inner}", choice)
    return node


def brought(chosen: dict[str, str]) -> dict[str, str]:
    """Options of other groups that the chosen ones bring with them."""
    return {
        key.removeprefix("override /").partition("@")[0]: choice
        for group, name in chosen.items()
        if (CONF / group / f"{name}.yaml").is_file()  # else a list of options
        for default in _loaded(group, name).get("defaults", [])
        for key, choice in default.items()
        if key.startswith("override ")
    }


def warming(name: str, length: str) -> tuple[str, ...]:
    """A warmup of that length, where it has one."""
    lengths = [key for key in ("length", "isolation") if key in _loaded("warmup", name)]
    return (f"warmup={name}", *(f"warmup.{key}={length}" for key in lengths))


@cache
def _loaded(group: str, name: str) -> DictConfig:
    loaded = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


@contextmanager
def _opened(node: DictConfig, adds: bool) -> Iterator[None]:
    OmegaConf.set_struct(node, not adds)
    yield
    OmegaConf.set_struct(node, True)


@cache
def _defaults() -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config")


@dataclass
class Spy:
    """A silent reporter that notes what it is told, and acts after chosen calls."""

    act: Callable[[str, Run], None] = lambda call, run: None
    rows: list[dict[str, Any]] = field(default_factory=list)  # one an optimizer step
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    found_texts: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    plan: list[PlannedStage] = field(default_factory=list)
    run: Run | None = None
    digest: dict[str, str] = field(default_factory=dict)

    def started(self, run: Run, plan: list[PlannedStage]) -> None:
        self.run, self.plan = run, plan
        self.act("started", run)

    def stepped(self, run: Run, loss: Tensor) -> None:
        group = next(iter(run.optimizer.groups()))
        self.losses.append(float(loss))
        self.rows.append(
            {
                "step": run.clock.step,
                "stage": run.events[-1].stage if run.events else "start",
                "phase": run.events[-1].phase if run.events else Phase.INTEGRATED,
                "params": run.params,
                "rate": group["lr"] / group["base_lr"],
                "alpha": run.events[-1].alpha if run.events else 1.0,
                "view": (run.view.share, run.view.side, run.view.length, run.batch_size),
                "curriculum": bool(run.curriculum.sets),
                "living": {event.stage: event.alpha for event in run.living},
            }
        )
        self.act("stepped", run)

    def observed(self, run: Run, observation: Observation) -> None:
        self.act("observed", run)

    def grew(self, run: Run, event: Event) -> None:
        self.causes.append(event.cause)
        self.act("grew", run)

    def advanced(self, run: Run, event: Event) -> None:
        self.act("advanced", run)

    def found(self, run: Run, kind: str, text: str, event: Event | None) -> None:
        self.found_texts.append(f"{kind}: {text}")
        self.act("found", run)

    def noted(self, run: Run, text: str) -> None:
        self.notes.append(text)
        self.act("noted", run)

    def stopped(self, run: Run) -> None:
        self.digest = digest(run)
        self.act("stopped", run)


def at_step(step: int, do: Callable[[], None], call: str = "stepped") -> Spy:
    """A spy that does something once, when that call comes at that step."""
    done: list[int] = []

    def act(name: str, run: Run) -> None:
        if name == call and run.clock.step == step and not done:
            done.append(step)
            do()

    return Spy(act)


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    directory: Path
    spy: Spy
    exit_code: int  # 0, or that of the `Interrupted` that ended it

    @property
    def run(self) -> Run:
        assert self.spy.run is not None
        return self.spy.run

    @property
    def bits(self) -> dict[str, str]:
        """The final state and the rows of both files."""
        rows = {
            f"{name}:{i}": json.dumps(row)
            for name in ("metrics.jsonl", "events.jsonl")
            for i, row in enumerate(read_rows(self.directory / name))
        }
        return {**self.spy.digest, **rows}


def train(made: Parts, directory: Path, spy: Spy | None = None, store: bool = True) -> Finished:
    """Train in `directory`, silently; without `store` no checkpoint is written."""
    spy, code = spy or Spy(), 0
    with _quiet(spy, store):
        try:
            job.train_job(made, directory)
        except Interrupted as error:
            code = error.exit_code
    return Finished(directory, spy, code)


def resume(made: Parts, directory: Path, spy: Spy | None = None) -> Finished:
    """Go on from the newest checkpoint, in a process that is in another state."""
    with otherwise():
        return train(replace(made, resume=True), directory, spy)


@contextmanager
def otherwise() -> Iterator[None]:
    """Everything global that a run could lean on without saying so, set to something else."""
    precision = torch.get_float32_matmul_precision()
    torch.manual_seed(999)
    random.seed(999)
    np.random.seed(999)
    random.gauss(0, 1)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _quiet(spy: Spy, store: bool) -> Generator[None]:
    """No screen; no waiting for the disk; torch's switches are as before afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    with (
        mock.patch.object(job, "reporter", lambda *_: spy),
        mock.patch.object(os, "fsync", lambda _: None),
        mock.patch.object(job, "write", job.write if store else lambda *_: None),
    ):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)


def branch(directory: Path, step: int, target: Path) -> Path:
    """A run directory as it was when `directory` had just stored that step; the rest is later."""
    folder = target / "checkpoints"
    folder.mkdir(parents=True)
    name = f"step_{step:08d}"
    shutil.copytree(directory / "checkpoints" / name, folder / name)
    for rows in directory.glob("*.jsonl"):
        shutil.copy(rows, target)
    return target


def digest(run: Run) -> dict[str, str]:
    """All of a run's state but its seconds, by name; equal strings are equal bits."""
    words: dict[str, str] = {f"model/{n}": _hash(t) for n, t in run.model.state_dict().items()}
    averaged = run.average.state_dict() if run.average is not None else {}
    words |= {f"average/{name}": _hash(tensor) for name, tensor in averaged.items()}
    for teacher in run.teachers:
        place = f"teacher/{teacher.growth}"
        kept = {f.name: timeless(getattr(teacher, f.name)) for f in fields(teacher)}
        events = [timeless(asdict(event)) for event in teacher.events]
        words[place] = repr({**kept, "model": "", "events": events})
        for name, tensor in teacher.model.state_dict().items():
            words[f"{place}/{name}"] = _hash(tensor)
    words["distilled"] = repr(None if run.distilled is None else float(run.distilled))
    for name in run.optimizer.parameters:
        for key, tensor in run.optimizer.state_of(name).items():
            words[f"optimizer/{name}/{key}"] = _hash(tensor)
    numpy_state: Any = np.random.get_state()
    words["rng/torch"] = _hash(torch.get_rng_state())
    words["rng/python"] = repr(random.getstate())
    words["rng/numpy"] = repr((numpy_state[1].tolist(), numpy_state[2:]))
    words["clock"] = repr(timeless(asdict(run.clock.now)))
    words["account"] = repr(timeless(run.clock.account.to_json()))
    for event in run.events:
        for each in fields(event):
            if each.name != "seconds":
                value = timeless(getattr(event, each.name))
                words[f"event/{event.index}/{each.name}"] = repr(value)
    if run.recent is not None:
        words["recent"] = _hash(run.recent.values_2S)
    for i, seen in enumerate(run.history):
        words[f"history/{i}"] = repr(timeless(asdict(seen)))
    if run.order is not None:
        words["order"] = _hash(run.order)
    named = ("memory", "grown_out", "stopped", "params", "flops", "full_params", "batch_size")
    for name in (*named, "view", "view_flops"):
        words[name] = repr(timeless(getattr(run, name)))
    return words


def differences(one: Finished, other: Finished) -> list[str]:
    """Names of what is not equal."""
    return differing(one.bits, other.bits)


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def read_rows(path: Path) -> list[Any]:
    """Rows of a JSON-lines file, without wall-clock time and without what only a resume says."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    told = [i for i, row in enumerate(rows) if row.get("kind") == "started"][1:]
    told += [i for i, row in enumerate(rows) if row.get("text", "").startswith("resumed at step")]
    return [timeless(row) for i, row in enumerate(rows) if i not in told]


def timeless(value: Any) -> Any:
    """`value` without what is counted in seconds."""
    if hasattr(value, "seconds") and hasattr(value, "__dataclass_fields__"):
        value = replace(value, seconds=0.0)
    if isinstance(value, dict):
        return {
            key: timeless(inner) for key, inner in value.items() if not _OF_TIME.search(str(key))
        }
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    return value


_OF_TIME = re.compile(r"seconds|^(throughput|memory|mfu)/")


def _hash(tensor: Tensor) -> str:
    data = whole(tensor).detach().cpu().contiguous()
    head = f"{tuple(data.shape)} {data.dtype} "
    return head + hashlib.sha256(data.view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def compared(path: Path, got: str) -> str:
    """What a checked-in file says; with PROGTRAIN_REWRITE=1 it says `got` from now on."""
    if os.environ.get("PROGTRAIN_REWRITE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(got, encoding="utf-8")
    return path.read_text(encoding="utf-8")
