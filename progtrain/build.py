"""Turns a composed configuration into the parts of a run: the only place that instantiates.

Parts hold no state, so building them twice (once to check, once to train) costs milliseconds.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from progtrain.command_line import classes, early, metrics, resolvers, signatures, tree
from progtrain.command_line.fits import misfits
from progtrain.command_line.targets import locate, plugins_in
from progtrain.command_line.told import choices, resolved
from progtrain.command_line.typos import suggestion
from progtrain.errors import ConfigError, ProgtrainError, SettingError

if TYPE_CHECKING:
    from torch import nn

    from progtrain.contracts import (
        AtGrowth,
        Augment,
        Curriculum,
        Data,
        Debug,
        Growth,
        Hardware,
        Logger,
        Loss,
        Metric,
        Mix,
        Monitor,
        OptimizerRecipe,
        Settle,
        Shape,
        StatePolicy,
        Transfer,
        Warmup,
    )
    from progtrain.settings import (
        Checkpoints,
        Nonfinite,
        Planning,
        Proof,
        Reporting,
        Stopping,
        Training,
    )

# What our growth YAMLs start from; a model without such sizes starts as it is.
_START = {"width": 0.5, "depth": 0.5}
_PARTS = (
    *("data", "curriculum", "growth", "warmup", "settle", "scheduler", "at_growth"),
    *("optimizer", "optimizer_state", "transfer", "hardware", "train", "stop", "proof"),
    *("checkpoint", "mix", "loss", "nonfinite", "report", "plan", "debug"),
)
resolvers.register()


@dataclass(frozen=True)
class ModelFactory:
    """Builds the network at a size; called with nothing it builds the full one."""

    config: DictConfig  # all of it, so that references out of `model` lead somewhere

    def __call__(self, start: Mapping[str, int | float]) -> nn.Module:
        """The network with settings `start`: 0.5 is half of the full setting, 1.0 all of it."""
        config = copy.deepcopy(self.config)
        takes = self._takes()
        OmegaConf.set_struct(config.model, False)
        left_out = self.without(start)
        for name, value in start.items():
            if name not in left_out:
                config.model[name] = self._size(name, value, takes)
        return _make(config, "model")

    def without(self, start: Mapping[str, int | float]) -> list[str]:
        """Which of the sizes that every growth starts from are no settings of this model.

        Whatever differs from the default was meant, so what the model lacks of it is an error.
        """
        known = {*self._takes(), *map(str, self.config.model)}
        return [n for n, value in start.items() if _START.get(n) == value and n not in known]

    def _takes(self) -> Mapping[str, object]:
        """What the model's class takes, with the default of each."""
        name = tree.value_at(self.config, "model._target_")
        takes = signatures.parameters(locate(name, plugins_in(self.config))) or {}
        return {key: parameter.default for key, parameter in takes.items()}

    def _size(self, name: str, value: int | float, takes: Mapping[str, object]) -> object:
        """`value` of a setting, a share of the full one as a number of its own."""
        setting = f"growth.start.{name}"
        known = {**takes, **{str(key): None for key in self.config.model}}
        if name not in known or name.startswith("_"):
            near = suggestion(setting, [f"growth.start.{key}" for key in known])
            raise ConfigError(f"Unknown setting {setting!r}: no setting of the model.{near}")
        full = tree.value_at(self.config, f"model.{name}")
        full = takes.get(name) if full is None else full
        if not isinstance(value, float):
            return value
        if value > 1 and value.is_integer():
            return int(value)
        if not 0 < value <= 1:
            raise ConfigError(
                f"{setting} must be a whole number or a share in (0, 1], got {value}."
            )
        if isinstance(full, list | tuple):
            return [_share(value, item, setting) for item in full]
        return _share(value, full, setting)


@dataclass(frozen=True)
class Parts:
    """Everything a run is made of, chosen and checked."""

    model_factory: Callable[[Mapping[str, int | float]], nn.Module]
    data: Data
    mix: Mix
    loss: Loss
    curriculum: Curriculum
    growth: Growth
    warmup: Warmup
    settle: Settle
    scheduler: Shape
    at_growth: AtGrowth
    optimizer: OptimizerRecipe
    optimizer_state: StatePolicy
    transfer: Transfer
    hardware: Hardware
    train: Training
    stop: Stopping
    proof: Proof
    checkpoint: Checkpoints
    nonfinite: Nonfinite
    report: Reporting
    plan: Planning
    debug: Debug
    task: str  # train, or plan
    seed: int
    resume: bool
    config: dict[str, Any]  # resolved, secrets masked: what config.yaml says
    choices: dict[str, str]  # group -> option
    monitors: Mapping[str, Monitor] = field(default_factory=lambda: dict[str, "Monitor"]())
    augments: Mapping[str, Augment] = field(default_factory=lambda: dict[str, "Augment"]())
    metrics: Mapping[str, Metric] = field(default_factory=lambda: dict[str, "Metric"]())
    loggers: Mapping[str, Logger] = field(default_factory=lambda: dict[str, "Logger"]())
    notes: tuple[str, ...] = ()  # what a reader of the settings would not expect


def build(composed: DictConfig) -> Parts:
    """Check once more and build; raises `ConfigError` with all that is wrong."""
    with metrics.counted(config := copy.deepcopy(composed)):
        uncounted = classes.assume(config)
        findings = signatures.check(config)
        problems = [finding.problem for finding in findings if finding.problem]
        if not problems:
            settle(config, findings)
            problems = refusals(config)
        if problems:
            raise ConfigError("\n".join(problems))
        classes.settle(config, uncounted, partial(_make, config, "data"))
        return _made(config)


def _made(config: DictConfig) -> Parts:
    """The parts of settings that are right."""
    factory = ModelFactory(config)
    made = {name: _make(config, name) for name in _PARTS}
    return Parts(
        model_factory=factory,
        task=str(config.task),
        seed=int(config.seed),
        resume=config.get("resume") is True,
        config=resolved(config),
        choices=choices(config),
        monitors=_named(config, "monitor"),
        augments=_named(config, "augment"),
        loggers=_named(config, "logger"),
        metrics=metrics.adapted(_named(config, "metric")),
        notes=(*_notes(factory, made["growth"].start), *metrics.notes(config)),
        **made,
    )


def _notes(factory: ModelFactory, start: Mapping[str, int | float]) -> Iterator[str]:
    left_out = factory.without(start)
    if left_out:
        size = "its full size" if len(left_out) == len(start) else "its full size in that"
        words = " or ".join(left_out)
        yield f"growth.start: this model has no setting {words}; it starts at {size}"


def settle(config: DictConfig, findings: list[signatures.Finding]) -> None:
    """Store values in the type that their class declares: 1000 for 1e3."""
    for finding in findings:
        if not finding.problem:
            OmegaConf.update(config, finding.setting, finding.fitted, merge=False)


def refusals(config: DictConfig, relevant: Callable[[str], bool] = lambda _: True) -> list[str]:
    """What the parts themselves refuse, each with its full name; nothing is kept or started."""
    told: dict[str, str] = {}
    nodes = dict(tree.targets(tree.raw(config)))
    for path in nodes:
        if relevant(path) and not _within(path, "model") and _is_cheap(config, path):
            try:
                _make(config, path)
            except ProgtrainError as error:
                told[path] = str(error)
    blamed = [path for path in told if not _passes_on(path, nodes[path], told)]
    problems = [told[path] for path in blamed]
    if not told and relevant("model"):
        problems += list(misfits(config)) or _early(config)
    return problems


def _early(config: DictConfig) -> list[str]:
    """What is wrong with the plan, as far as the settings alone can tell."""
    try:
        factory, growth, train = (
            ModelFactory(config),
            _make(config, "growth"),
            _make(config, "train"),
        )
        sizes: list[Mapping[str, int | float]] = [growth.start, {}] if growth.start else [{}]
        limit = OmegaConf.select(config, "stop.max_params")
        again = bool(OmegaConf.select(config, "hardware.activation_checkpointing"))
    except Exception:
        return []  # a class of the user's that only a run can build
    return [
        *early.late_stages(growth, train),
        *early.refused_networks(factory, sizes, limit, again),
    ]


def part(config: DictConfig, group: str) -> Any:
    """One part alone, of settings that are right."""
    return _make(config, group)


def _make(config: DictConfig, path: str) -> Any:
    """Build one node; what its class refuses becomes a `ConfigError` with the full name."""
    node = OmegaConf.select(config, path)
    try:
        return instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, SettingError):
            raise ConfigError(cause.sentence(path)) from error
        if isinstance(cause, ProgtrainError):
            raise cause from error
        if isinstance(cause, ValueError | TypeError):
            raise ConfigError(f"{path}: {cause}") from error
        raise cause or ConfigError(f"{path}: {error}") from error


def _named(config: DictConfig, group: str) -> dict[str, Any]:
    """The parts of a group of which several may be chosen."""
    return {str(name): _make(config, f"{group}.{name}") for name in config[group]}


def _is_cheap(config: DictConfig, path: str) -> bool:
    """Whether the node is made of dataclasses only, so that building it does nothing."""
    plugins = plugins_in(config)
    for _, node in tree.targets(tree.value_at(config, path)):
        partial = bool(node.get("_partial_"))
        if not partial and not dataclasses.is_dataclass(locate(node["_target_"], plugins)):
            return False
    return True


def _passes_on(path: str, node: object, failing: Iterable[str]) -> bool:
    """Whether a node only fails with a node in it or one that it refers to."""
    links = tree.references(node)
    return any(other != path and (_within(other, path) or other in links) for other in failing)


def _within(name: str, outer: str) -> bool:
    return name == outer or name.startswith((f"{outer}.", f"{outer}["))


def _share(share: float, full: object, setting: str) -> int:
    if isinstance(full, bool) or not isinstance(full, int):
        told = f"{setting}={share} is a share, but the full setting is {full!r}, no whole number."
        raise ConfigError(told)
    return max(1, round(share * full))
