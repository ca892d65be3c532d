"""The metrics that evaluations log: their names, and which way is better."""

from __future__ import annotations

import re

ALWAYS = ("val/loss", "val/accuracy", "train/loss")
AVERAGED = ("val/ema/loss", "val/ema/accuracy")  # where train.ema keeps an average of the weights
DISTILLED = "train/distillation"  # where a transfer has teachers, from the first growth on
LOGGED = (*ALWAYS, *AVERAGED, DISTILLED)
_HEAD = re.compile(r"val/[A-Za-z_]\w*/(loss|accuracy)", re.ASCII)  # of a further head, by its name
SHORT = {"loss": "val/loss", "accuracy": "val/accuracy"}


def canonical(name: str) -> str | None:
    """The full name of a metric, `val/loss` for `loss`; None for what no evaluation logs."""
    name = SHORT.get(name, name)
    return name if name in LOGGED or _HEAD.fullmatch(name) else None


def smaller_is_better(name: str) -> bool:
    """True of losses, False of accuracies."""
    return name.rpartition("/")[2] in ("loss", "distillation")
