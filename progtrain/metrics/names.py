"""The metrics that evaluations log: their names, and which way is better.

The loss is always there; of the others, those that `metric=[…]` chooses. Which these are is known
while settings are read and while a run goes on (`choosing`). Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches

LOSS = "loss"
DISTILLED = "train/distillation"  # where a transfer has teachers, from the first growth on
TAKEN = (LOSS, "ema", "distillation")  # names that no metric of a user's may have
_PATH = re.compile(r"val/(?:ema/)?(?:[A-Za-z_]\w*/)?(?P<name>[A-Za-z_]\w*)", re.ASCII)


@dataclass(frozen=True)
class _Choice:
    smaller: Mapping[str, bool]  # of each chosen metric: whether less of it is better
    options: tuple[str, ...]  # what else could be chosen


_CHOICE: ContextVar[_Choice | None] = ContextVar("metrics", default=None)


def _chosen() -> _Choice:
    return _CHOICE.get() or _Choice({"accuracy": False}, ())


@contextmanager
def choosing(smaller: Mapping[str, bool], options: Iterable[str] = ()) -> Generator[None]:
    """Within it, names are those of the loss and of `smaller`: whether less of each is better."""
    token = _CHOICE.set(_Choice(smaller, tuple(options)))
    try:
        yield
    finally:
        _CHOICE.reset(token)


def short() -> tuple[str, ...]:
    """The names that may stand alone: `loss` means `val/loss`."""
    return (LOSS, *_chosen().smaller)


def logged() -> tuple[str, ...]:
    """Full names of what evaluations log; those of heads come in between: `val/coarse/loss`.

    `val/ema/…` is there where train.ema keeps an average of the weights.
    """
    validated = [f"val/{name}" for name in short()]
    averaged = [f"val/ema/{name}" for name in short()]
    return (*validated, "train/loss", *averaged, DISTILLED)


def canonical(name: str) -> str | None:
    """The full name of a metric, `val/loss` for `loss`; None for what no evaluation logs."""
    name = f"val/{name}" if name in short() else name
    path = _PATH.fullmatch(name)
    known = name in logged() or (path is not None and path["name"] in short())
    return name if known else None


def tested(name: str) -> str | None:
    """The full name of a metric of an evaluation or of the test at the end (`test/loss`)."""
    on_test = name.startswith("test/") and canonical(f"val/{name.removeprefix('test/')}")
    return name if on_test else canonical(name)


def smaller_is_better(name: str) -> bool:
    """True of losses, False of accuracies."""
    last = name.rpartition("/")[2]
    return last in (LOSS, "distillation") or _chosen().smaller.get(last, False)


def instead(name: str, beside: Iterable[str] = ()) -> str:
    """What to write instead of a name that no evaluation logs; begins with a space, or is empty.

    `beside` are names of no metrics that may stand there as well.
    """
    choice = _chosen()
    others = [option for option in choice.options if option not in choice.smaller]
    last = name.rpartition("/")[2]
    if last in others:
        return f" To count it: {_added(last)}."
    if name.startswith("test/") and tested(name):
        return " The test split is measured once, at the end of the run."
    further = [*others, *(f"val/{option}" for option in others)]
    close = get_close_matches(name, [*beside, *short(), *logged(), *further], 1, cutoff=0.5)
    if not close:
        return ""
    missing = close[0].rpartition("/")[2] in others
    add = f" To count it: {_added(close[0].rpartition('/')[2])}." if missing else ""
    return f" Did you mean {close[0]!r}?{add}"


def _added(name: str) -> str:
    return f"metric=[{','.join([*_chosen().smaller, name])}]"
