"""What one of several processes of a run does, whoever has started it.

torch is imported only once the process has its place: that decides on its threads.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from progtrain.checkpoint.lock import RunLock
from progtrain.errors import EnvironmentProblem, Interrupted, ProgtrainError, SettingError
from progtrain.report.units import assigned
from progtrain.signals import Ended

_LATE = ("timed out", "timeout")  # how gloo, NCCL and their store say it
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # how gloo does


@dataclass(frozen=True)
class Work:
    """A job as Hydra has composed it, on its way to another process."""

    config: DictConfig
    hydra: Any  # all that was composed, Hydra's own node included
    directory: Path

    @staticmethod
    def of(config: DictConfig, directory: Path) -> Work:
        """The present job; `${hydra:…}` in it leads somewhere in the other process too."""
        # as plain data: a launcher's own classes may not be those that another process imports
        told = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
        return Work(config, told, directory.absolute())

    def train(self, lock: RunLock | None) -> float:
        """Take part in the job; the metric. The caller has stored the settings."""
        setup_globals()
        if not HydraConfig.initialized():
            HydraConfig.instance().cfg = self.hydra
        from progtrain import build
        from progtrain.job import train_job

        return train_job(build.build(self.config), self.directory, lock)


@dataclass
class Outcome:
    """How a process has ended: with a metric, or by an error of which `trace` tells more."""

    metric: float = float("nan")
    kind: type[BaseException] | None = None
    words: tuple[Any, ...] = ()
    facts: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    trace: str = ""

    @property
    def known(self) -> bool:
        """Whether it is an error that has a line for the user."""
        return self.kind is not None and issubclass(self.kind, ProgtrainError | SettingError)

    @property
    def ended(self) -> bool:
        """Whether a signal has ended it at once."""
        return self.kind is not None and issubclass(self.kind, KeyboardInterrupt)

    @property
    def stored(self) -> bool:
        """Whether a signal has ended it after a last checkpoint."""
        return self.kind is not None and issubclass(self.kind, Interrupted)

    def error(self) -> BaseException:
        """The error as it was, without its frames."""
        assert self.kind is not None
        made = self.kind.__new__(self.kind, *self.words)
        made.args = self.words
        made.__dict__.update(self.facts)
        if not self.known and not self.ended:
            made.add_note(f"In another process:\n{self.trace}")
        return made

    def plain(self) -> Outcome:
        """The same for where its class or what it holds cannot go."""
        kind = self.kind.__name__ if self.kind else ""
        words = (f"{kind}: {' '.join(map(str, self.words))}",)
        return Outcome(self.metric, RuntimeError, words, trace=self.trace)


def attempt(work: Callable[[], float], rank: int) -> Outcome:
    """Do it; whatever it raises becomes an outcome."""
    try:
        return Outcome(work())
    except BaseException as error:
        found = _late(error, rank)
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, Ended):
            found = Ended(2)
        traceback.clear_frames(error.__traceback__)
        outcome = Outcome(kind=type(found), words=found.args, facts=vars(found), trace=trace)
    gc.collect()
    return outcome


@contextmanager
def others_gone(directory: Path) -> Generator[None]:
    """Around a run of several processes: what torch says of one that is gone, in words that
    help; of one that hangs as well."""
    try:
        yield
    except RuntimeError as error:
        late = _late(error, 0)
        if late is not error:
            raise late from error
        if not any(word in str(error) for word in _GONE):
            raise
        raise EnvironmentProblem(
            "Another process of the run is gone, and says why where it can. What was stored is"
            f" whole: continue with progtrain {assigned('resume', directory)}"
        ) from error


def _late(error: BaseException, rank: int) -> BaseException:
    """An error of torch's about one that waited in vain, in words that help."""
    text = str(error).lower()
    if not isinstance(error, RuntimeError) or not any(word in text for word in _LATE):
        return error
    return EnvironmentProblem(
        f"Rank {rank} has waited for another process longer than hardware.timeout. Nothing that was"
        " stored is lost. Is a process stuck, or one device much slower? Try a larger"
        " hardware.timeout."
    )
