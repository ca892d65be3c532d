"""Reads conditions: text to a tree of `expression.py`, or an error at a position.

    condition   comparison, flat(metric, 3), not condition, condition and condition, ... or ...
    comparison  sum < sum, and <= > >= == !=; chained ones are refused
    sum         numbers (0.7, 1e-3, 50%), names, best(metric), + - * /, brackets

A `/` without spaces belongs to a name (`val/loss`); a division has spaces (`loss / 2`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from math import isfinite
from typing import NamedTuple

from progtrain.growth.expression import (
    COMPARE,
    WORDS,
    Best,
    Flat,
    Name,
    Node,
    Number,
    One,
    Two,
    is_condition,
)
from progtrain.metrics import canonical, instead, logged, short

LONGEST = 500  # characters of an expression
DEEPEST = 30  # brackets and signs within each other
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?%?)"
    r"|(?P<name>[A-Za-z_]\w*(?:/\w+)*)"
    r"|(?P<sign><=|>=|==|!=|[-+*/()<>,])",
    re.ASCII,
)
_FUNCTIONS = ("best", "flat")
_OPERAND = "a number, a name, best(metric), flat(metric, 3), not, - or an opening bracket"
_REST = "a comparison, + - * /, and, or, or the end"


class ExpressionError(Exception):
    """The expression is wrong at a position; the message says what is allowed there."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def parse(text: str, names: Collection[str]) -> Node:
    """The tree of a condition over `names` and metrics; raises `ExpressionError`."""
    if len(text) > LONGEST:
        raise ExpressionError(LONGEST, f"An expression has at most {LONGEST} characters.")
    parser = _Parser(_tokens(text), names)
    node = parser.condition()
    parser.end()
    if not is_condition(node):
        raise ExpressionError(0, "This is a number: compare it with another, such as loss < 0.5.")
    return node


class _Token(NamedTuple):
    kind: str  # number, name, sign, end
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens, at = list[_Token](), 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if text[at].isspace():
            at += 1
        elif match is None:
            hint = " Is it ==?" if text[at] == "=" else ""
            raise ExpressionError(at, f"{text[at]!r} means nothing here.{hint}")
        else:
            tokens.append(_Token(str(match.lastgroup), match.group(), at))
            at = match.end()
    return [*tokens, _Token("end", "the end", len(text))]


class _Parser:
    """Recursive descent, one method a level of precedence."""

    def __init__(self, tokens: list[_Token], names: Collection[str]) -> None:
        self.tokens, self.names, self.place, self.depth = tokens, names, 0, 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self, *texts: str) -> _Token | None:
        """The next token where it is one of these."""
        token = self.next
        if token.kind == "end" or token.text not in texts:
            return None
        self.place += 1
        return token

    def need(self, text: str, why: str) -> None:
        if self.take(text) is None:
            raise ExpressionError(self.next.at, f"{why}, not {self.next.text!r}.")

    def end(self) -> None:
        if self.next.kind != "end":
            raise ExpressionError(self.next.at, f"Allowed here: {_REST}; not {self.next.text!r}.")

    def condition(self) -> Node:
        return self.logic("or", lambda: self.logic("and", self.negation))

    def logic(self, word: str, inner: Callable[[], Node]) -> Node:
        at, node = self.next.at, inner()
        while self.take(word):
            self.must(node, at, condition=True, word=word)
            at_right, right = self.next.at, inner()
            self.must(right, at_right, condition=True, word=word)
            node = Two(word, node, right)
        return node

    def negation(self) -> Node:
        if not self.take("not"):
            return self.comparison()
        at, part = self.next.at, self.deeper(self.negation)
        self.must(part, at, condition=True, word="not")
        return One("not", part)

    def comparison(self) -> Node:
        at, left = self.next.at, self.sum(("+", "-"))
        sign = self.take(*COMPARE)
        if sign is None:
            return left
        at_right, right = self.next.at, self.sum(("+", "-"))
        for side, start in ((left, at), (right, at_right)):
            self.must(side, start, condition=False, word=sign.text)
        if self.next.text in COMPARE:
            told = "Comparisons cannot be chained: write a < b and b < c."
            raise ExpressionError(self.next.at, told)
        return Two(sign.text, left, right)

    def sum(self, signs: tuple[str, str]) -> Node:
        """Sums of products, left to right."""
        inner = (lambda: self.sum(("*", "/"))) if "+" in signs else self.factor
        at, node = self.next.at, inner()
        while sign := self.take(*signs):
            at_right, right = self.next.at, inner()
            for side, start in ((node, at), (right, at_right)):
                self.must(side, start, condition=False, word=sign.text)
            node = Two(sign.text, node, right)
        return node

    def factor(self) -> Node:
        token = self.next
        if self.take("-"):
            at, part = self.next.at, self.deeper(self.factor)
            self.must(part, at, condition=False, word="-")
            return One("-", part)
        if self.take("("):
            node = self.deeper(self.condition)
            self.need(")", f"The bracket needs a closing one here, or {_REST}")
            return node
        if token.kind == "number":
            self.place += 1
            return Number(self.number(token))
        if token.kind != "name" or token.text in WORDS:
            raise ExpressionError(token.at, f"Allowed here: {_OPERAND}; not {token.text!r}.")
        self.place += 1
        return self.call(token) if token.text in _FUNCTIONS else self.name(token)

    def call(self, function: _Token) -> Node:
        form = "best(metric)" if function.text == "best" else "flat(metric, observations)"
        self.need("(", f"Write {form}: a bracket is needed here")
        metric = self.metric(self.next)
        self.place += 1
        if function.text == "best":
            self.need(")", f"Write {form}: a closing bracket is needed here")
            return Best(metric)
        self.need(",", f"Write {form}: a comma is needed here")
        token = self.next
        count = self.number(token) if token.kind == "number" else 0.0
        if count < 1 or not count.is_integer():
            raise ExpressionError(token.at, f"A whole number >= 1 is needed, not {token.text!r}.")
        self.place += 1
        self.need(")", f"Write {form}: a closing bracket is needed here")
        return Flat(metric, int(count))

    def metric(self, token: _Token) -> str:
        found = canonical(token.text)
        if found is None:
            known = ", ".join(logged())
            told = f"A metric is needed here ({known}).{instead(token.text)}"
            raise ExpressionError(token.at, told)
        return found

    def name(self, token: _Token) -> Node:
        metric = canonical(token.text)
        if token.text not in self.names and metric is None:
            known = [*self.names, *short(), *logged()]
            first, slash, _ = token.text.partition("/")
            divides = slash and (first in self.names or canonical(first))
            near = instead(token.text, self.names)
            near = " A division has spaces: a / b." if divides else near
            told = f"Unknown name {token.text!r}; known are {', '.join(known)}.{near}"
            raise ExpressionError(token.at, told)
        return Name(token.text if token.text in self.names else str(metric))

    def number(self, token: _Token) -> float:
        number = float(token.text.rstrip("%")) / (100 if token.text.endswith("%") else 1)
        if not isfinite(number):
            raise ExpressionError(token.at, f"{token.text} is no finite number.")
        return number

    def deeper(self, inner: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ExpressionError(self.next.at, f"At most {DEEPEST} brackets within each other.")
        node = inner()
        self.depth -= 1
        return node

    def must(self, node: Node, at: int, condition: bool, word: str) -> None:
        if is_condition(node) is not condition:
            wanted = "a condition, such as loss < 0.5" if condition else "a number"
            got = "a number" if condition else "a condition"
            raise ExpressionError(at, f"{word!r} needs {wanted}; this is {got}.")
