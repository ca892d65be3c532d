"""Conditions as trees of frozen nodes, and what a tree is worth.

Nothing is ever executed: what a name means is asked of `look`. A comparison with what is not known
yet is neither true nor false, so its negation is not true either.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_COMPUTE: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
WORDS = ("and", "or", "not")


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Name:
    """A number of the run: of its clock, or a metric by its full name."""

    name: str


@dataclass(frozen=True)
class Best:
    """The best value of a metric so far."""

    metric: str


@dataclass(frozen=True)
class Flat:
    """Whether the last `count` observations of a metric brought no new best."""

    metric: str
    count: int


@dataclass(frozen=True)
class One:
    """`-` of a number or `not` of a condition."""

    sign: str
    part: Node


@dataclass(frozen=True)
class Two:
    """A computation, a comparison, `and` or `or`."""

    sign: str
    left: Node
    right: Node


Asked = Name | Best | Flat
Node = Number | Asked | One | Two


def is_condition(node: Node) -> bool:
    """Whether a node is true or false, not a number."""
    return isinstance(node, Flat) or (
        isinstance(node, One | Two) and (node.sign in WORDS or node.sign in COMPARE)
    )


def value(node: Node, look: Callable[[Asked], float | bool | None]) -> float | bool | None:
    """What a tree is worth now; None where it hangs on what is not known (or divides by 0)."""
    match node:
        case Number():
            return node.value
        case One():
            part = value(node.part, look)
            return None if part is None else not part if node.sign == "not" else -part
        case Two():
            return _joined(node.sign, value(node.left, look), value(node.right, look))
        case _:
            return look(node)


def _joined(sign: str, left: float | None, right: float | None) -> float | bool | None:
    if sign in ("and", "or"):
        decisive = sign == "or"
        if left is decisive or right is decisive:
            return decisive
        return None if left is None or right is None else not decisive
    if left is None or right is None or (sign == "/" and right == 0):
        return None
    return COMPARE[sign](left, right) if sign in COMPARE else _COMPUTE[sign](left, right)


def asked(node: Node) -> list[Asked]:
    """What a tree asks the run for, each once, in the order it is written."""
    match node:
        case Number():
            return []
        case One():
            return asked(node.part)
        case Two():
            return list(dict.fromkeys([*asked(node.left), *asked(node.right)]))
        case _:
            return [node]
