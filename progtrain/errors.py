"""What a user sees when something is wrong, and the exit code that goes with it.

Every message has the same shape: what is wrong, what is allowed, what to try. Nothing here imports
torch, so the command line can answer a typing mistake at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class ProgtrainError(Exception):
    """Anything a user can cause or must know; printed without a traceback."""

    exit_code = 1


class ConfigError(ProgtrainError):
    """A wrong configuration or command line."""

    exit_code = 2


class DivergedError(ProgtrainError):
    """Loss or weights are not finite any more; `facts` say of a step what is known of it."""

    exit_code = 3

    def __init__(self, message: str, facts: Mapping[str, Any] | None = None) -> None:
        hint = "Try a smaller optimizer.lr, train.clip=1 or nonfinite.policy=skip."
        super().__init__(message if "optimizer.lr" in message else f"{message} {hint}")
        self.facts = facts


class CheckpointError(ProgtrainError):
    """No usable checkpoint."""

    exit_code = 4


class EnvironmentProblem(ProgtrainError):  # noqa: N818 - it is the machine, not an error of ours
    """Disk, device or memory does not allow it."""

    exit_code = 5


class GrowthError(ProgtrainError):
    """A growth that cannot be done; the network and its optimizer are as they were."""

    exit_code = 2
    flops: float = 0.0  # what it had cost by then, as far as that is known


class NothingToGrowError(GrowthError):
    """The network has nothing that an operator could act on: no stack, no width."""


class GrowthMemoryError(GrowthError):
    """There is no memory for the old and the new network at once."""

    exit_code = 5


class BusyError(ProgtrainError):
    """The run directory belongs to another run."""

    exit_code = 6


class FoundError(ProgtrainError):
    """A debug mode has found what it looks for; the run itself went as it should."""

    exit_code = 7


class Interrupted(ProgtrainError):  # noqa: N818 - it is no error
    """A signal ended the run after a last checkpoint."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class SettingError(ValueError):
    """A plug-in's own field has a value it cannot take; the builder adds the path in the config.

    Raised as `SettingError("patience", 0, "a whole number >= 1")`, shown as
    `growth.patience must be a whole number >= 1, got 0.`
    """

    def __init__(self, setting: str, got: object, allowed: str, hint: str = "") -> None:
        super().__init__(setting, got, allowed, hint)
        self.setting, self.got, self.allowed, self.hint = setting, got, allowed, hint

    def sentence(self, prefix: str = "") -> str:
        """The message, with the setting's full name when the caller knows its place."""
        name = f"{prefix}.{self.setting}" if prefix else self.setting
        return f"{name} must be {self.allowed}, got {self.got!r}. {self.hint}".rstrip()

    def __str__(self) -> str:
        return self.sentence()


def require(ok: bool, setting: str, got: object, allowed: str, hint: str = "") -> None:
    """Raise `SettingError` unless `ok`; for `__post_init__` of plug-ins."""
    if not ok:
        raise SettingError(setting, got, allowed, hint)


def report(problems: Sequence[str]) -> str:
    """One message of one or more problems."""
    each = list(dict.fromkeys(problems))
    if len(each) == 1:
        return each[0]
    lines = "\n".join(f"  {text}" for text in each)
    return f"{len(each)} problems, nothing was started.\n{lines}"


@contextmanager
def settings_of(node: str) -> Generator[None]:
    """Give what a plug-in refuses while it works the full name of its setting."""
    try:
        yield
    except SettingError as error:
        raise ConfigError(error.sentence(node)) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known word is near."""
    close = get_close_matches(word, list(known), 1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
