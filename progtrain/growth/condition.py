"""Conditions on a run, such as `val/accuracy > 0.7 and epoch >= 3`.

Names: the clock (`step`, `epoch`, `samples`, `flops`, `seconds`, and `fraction` of the run that is
over, in [0, 1]); `params` of the network now; `growths` that have happened; `since_growth`, epochs
since the last growth was integrated, while it lives since it happened, before the first since the
start; any logged metric (`val/accuracy`, `train/loss`; `accuracy` and `loss` mean `val/...`) at its
last observation. `best(metric)` is the best so far, the smallest of a loss; `flat(metric, n)` holds
when the last n observations, all since the last growth, did not beat the best before them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from progtrain.clock import Unit
from progtrain.errors import ConfigError, SettingError
from progtrain.growth.expression import Asked, Best, Flat, Name, Node, asked, value
from progtrain.growth.expression_parser import ExpressionError, parse
from progtrain.growth.past import last_growth, observed, without_improvement
from progtrain.metrics import short, smaller_is_better
from progtrain.run import Run

CLOCK = ("step", "epoch", "samples", "flops", "seconds", "fraction")
NAMES = (*CLOCK, "params", "growths", "since_growth")
ALLOWED = "a condition such as 'val/accuracy > 0.7 and epoch >= 3'"


@dataclass(frozen=True)
class Condition:
    """A condition that has been read and checked."""

    text: str
    tree: Node

    @staticmethod
    def parse(text: object, setting: str, extra: tuple[str, ...] = ()) -> Condition:
        """Read `text`, in which names of `extra` may stand as well.

        Raises `SettingError` for `setting` with a mark under the character that is wrong.
        """
        if not isinstance(text, str):
            raise SettingError(setting, text, ALLOWED)
        try:
            return _parsed(text, extra, short())
        except ExpressionError as error:
            raise SettingError(setting, text, ALLOWED, _marked(text, error)) from error

    def holds(self, run: Run, **extra: float | None) -> bool:
        """Whether it is true now; false where it hangs on what has not been observed yet."""
        return value(self.tree, lambda node: _look(node, run, extra)) is True

    def told(self, run: Run, **extra: float | None) -> str:
        """The condition with the values of now: `loss < 1 (val/loss 0.82)`."""
        found = {_name(node): _look(node, run, extra) for node in asked(self.tree)}
        numbers = [f"{n} {v:.4g}" for n, v in found.items() if isinstance(v, int | float)]
        numbers = [told for told in numbers if not told.startswith("flat")]
        return self.text + (f" ({', '.join(numbers)})" if numbers else "")

    def check(self, run: Run) -> None:
        """Raise `ConfigError` for a metric of the average of weights where none is kept."""
        names = [node.name if isinstance(node, Name) else node.metric for node in asked(self.tree)]
        averaged = [name for name in names if name.startswith("val/ema/")]
        if averaged and run.average is None:
            raise ConfigError(
                f"{self.text!r} asks for {averaged[0]}, but no average of the weights is kept."
                " Set train.ema, such as train.ema=0.99."
            )


@lru_cache(maxsize=256)  # conditions are read again at every step
def _parsed(text: str, extra: tuple[str, ...], metrics: tuple[str, ...]) -> Condition:
    """`metrics` are those that are counted now: with others the same text may be wrong."""
    return Condition(text, parse(text, (*NAMES, *extra)))


def _marked(text: str, error: ExpressionError) -> str:
    """What is wrong, and the expression with a mark under the very character."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    start = max(0, error.position - 60)
    shown = line[start : error.position + 40]
    return f"{error}\n    {shown}\n    {' ' * (error.position - start)}^"


def _name(node: Asked) -> str:
    match node:
        case Name():
            return node.name
        case Best():
            return f"best({node.metric})"
        case Flat():
            return f"flat({node.metric}, {node.count})"


def _look(node: Asked, run: Run, extra: dict[str, float | None]) -> float | bool | None:
    match node:
        case Flat(metric, count):
            return without_improvement(run, metric, smaller_is_better(metric), count)
        case Best(metric):
            values = [number for _, number in observed(run, metric)]
            best = min if smaller_is_better(metric) else max
            return best(values) if values else None
        case Name(name):
            return _number(name, run, extra)


def _number(name: str, run: Run, extra: dict[str, float | None]) -> float | None:
    clock = run.clock
    match name:
        case _ if name in extra:
            return extra[name]
        case "fraction":
            return clock.fraction
        case "epoch":
            return clock.epoch
        case "step" | "samples" | "flops" | "seconds":
            return float(getattr(clock.now, name))
        case "params":
            return run.params
        case "growths":
            return len(run.events)
        case "since_growth":
            return clock.epoch - clock.count(last_growth(run), Unit.EPOCH)
        case _:
            seen = observed(run, name)
            return seen[-1][1] if seen else None
