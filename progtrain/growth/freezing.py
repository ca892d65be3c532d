"""Parameters that do not train, by name: `train.freeze`, until `train.thaw`."""

from __future__ import annotations

from collections.abc import Iterable

from progtrain.clock import Duration, Moment
from progtrain.errors import ConfigError
from progtrain.growth.heads import head_names
from progtrain.growth.tensors import matching
from progtrain.run import Run
from progtrain.settings import Training

_NAMED = 8  # parameters in a message


def frozen_now(run: Run, train: Training) -> tuple[str, ...]:
    """Patterns of what does not train at this moment."""
    thawed = train.thaw is not None and _is_over(run, train.thaw)
    return () if thawed else tuple(train.freeze)


def _is_over(run: Run, thaw: str) -> bool:
    return run.clock.progress(Moment(), Duration.parse(thaw, "thaw")) >= 1


def check_names(train: Training, networks: Iterable[Run]) -> None:
    """Refuse patterns and a head that no network of the plan knows, and a network all frozen."""
    heads, parameters = dict[str, None](), dict[str, None]()
    for ahead in networks:
        heads |= dict.fromkeys(head_names(ahead.model))
        names = [name for name, _ in ahead.model.named_parameters()]
        parameters |= dict.fromkeys(names)
        frozen = {name for pattern in train.freeze for name in matching(names, pattern)}
        if len(frozen) == len(names):
            raise ConfigError(
                f"train.freeze={list(train.freeze)} freezes every parameter, so nothing trains."
                " Name fewer."
            )
    if train.answers is not None and train.answers not in heads:
        raise ConfigError(
            f"train.answers={train.answers!r} is no head of this run; heads: {', '.join(heads)}."
            " Name one of them, or null for the newest."
        )
    for pattern in train.freeze:
        if not matching(parameters, pattern):
            known = ", ".join(list(parameters)[:_NAMED])
            raise ConfigError(
                f"train.freeze: {pattern!r} is the name of no parameter of this run; there are"
                f" {known}, … A * stands for anything, as in head.*."
            )
