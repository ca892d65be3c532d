"""What growing asks of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn

    from progtrain.clock import Clock, Duration, Moment
    from progtrain.growth.edits import Edit
    from progtrain.growth.grow import Grown, Host
    from progtrain.monitors.finding import Occasion, Watched
    from progtrain.optimizers.group import State
    from progtrain.run import Event, Phase, Run, Stage, StopReason
    from progtrain.setup import Setup
    from progtrain.transfer.teaching import Teaching


class Operator(Protocol):
    """Proposes one structural change and fills what is new (groups `widen`, `deepen`)."""

    @property
    def preserves(self) -> bool:
        """Whether the grown network computes the host's function with no help of a warmup."""
        ...

    @property
    def shares(self) -> bool:
        """Whether host weights were changed to make room, so that new parts cannot be blended."""
        ...

    def propose(self, host: Host) -> Edit:
        """The change as data; raises `GrowthError` with the reason where there is none."""
        ...

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        """Give the new entries their values, in place; they are zero before."""
        ...

    def flops(self, grown: Grown) -> float:
        """What `fill` has cost, where it looks at gradients; the run is charged with it."""
        ...


class Trigger(Protocol):
    """Asks whether it is time: a pure function of the run."""

    def due(self, run: Run) -> str | None:
        """The cause in words, or None."""
        ...


class Growth(Protocol):
    """The order of stages (group `growth`)."""

    @property
    def start(self) -> Mapping[str, int | float]:
        """Model settings of the first network; a fraction is a share of the full setting."""
        ...

    @property
    def consolidate(self) -> Duration:
        """How long the structure stays after a growth has warmed up."""
        ...

    @property
    def keep_if(self) -> str | None:
        """A condition at the end of a growth's life without which it is undone; None: kept."""
        ...

    def upcoming(self, run: Run) -> Stage | StopReason:
        """The stage that comes next whenever its time comes, or why there is none."""
        ...

    def next(self, run: Run) -> Stage | StopReason | None:
        """The stage that is due now, or why growth is over."""
        ...


@dataclass(frozen=True)
class Strength:
    """How strong the new part and the host are at one moment of a life cycle."""

    alpha: float = 1.0  # factor on the new part's output, in [0, 1]
    newborn_rate: float = 1.0  # factor on every update of new entries, in [0, 1]


class Warmup(Protocol):
    """How what is new joins (group `warmup`): pure functions of phase and progress."""

    @property
    def preserves(self) -> bool:
        """Whether the new part is silent at the growth, whatever the operator does."""
        ...

    @property
    def zeroes(self) -> bool:
        """Whether outgoing weights of what is new are set to zero at the growth."""
        ...

    @property
    def blends(self) -> bool:
        """Whether alpha ever differs from 1."""
        ...

    @property
    def isolates(self) -> bool:
        """Whether what is new passes no gradient on to the host while it is blended in."""
        ...

    def lengths(self) -> Mapping[Phase, Duration]:
        """Length of `Phase.ISOLATE` and `Phase.WARMUP`; a phase not named is skipped."""
        ...

    def strength(self, phase: Phase, progress: float) -> Strength:
        """Strength at `progress` in [0, 1] of the phase; at 1 of WARMUP all factors are 1."""
        ...


class Settle(Protocol):
    """What the learning rate does while a growth settles (group `settle`)."""

    @property
    def lasting(self) -> Duration:
        """Length of `Phase.SETTLE`; of length 0 the phase is skipped."""
        ...

    def factor(self, event: Event, clock: Clock) -> float:
        """Factor on every group's learning rate, beside the scheduler's; of several growths the
        smallest counts."""
        ...


class Monitor(Protocol):
    """Watches growths (group `monitor`); reads only. The machine applies the remedy."""

    @property
    def remedy(self) -> str:
        """warn, adapt, rollback, stop or grow: what follows a finding."""
        ...

    @property
    def hold(self) -> str:
        """How long `adapt` holds the ramp of the growth that a finding is about."""
        ...

    @property
    def lookback(self) -> int:
        """How many steps of losses and gradient norms it looks at; 0: none, none are kept."""
        ...

    def check(self, setup: Setup) -> None:
        """Raise `ConfigError` where it could find nothing beside the other parts."""
        ...

    def watches(self, run: Run, setup: Setup, event: Event) -> bool:
        """Whether it may still find something in `event`: as long its way back stays open."""
        ...

    def watch(self, run: Run, setup: Setup, occasion: Occasion, last: Moment) -> Watched:
        """What is to be seen now; `last` is the moment before the last step."""
        ...


class StatePolicy(Protocol):
    """What an optimizer remembers across a growth (group `optimizer_state`)."""

    def carried(self, grown: Grown, name: str, parameter: nn.Parameter, state: State) -> State:
        """The state of tensor `name` after the growth; `parameter` and `state` are the old ones,
        with what is counted counted for every entry where the tensor has grown."""
        ...


class Transfer(Protocol):
    """What a growth hands on from the network before it (group `transfer`)."""

    @property
    def preserves(self) -> bool:
        """Whether every growth must keep the function, and is silenced where nothing else does."""
        ...

    @property
    def teaching(self) -> Teaching | None:
        """How networks of before teach those after them; None where none does."""
        ...
