"""The curves of one run over its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from progtrain.page.chart import COLOURS, Axis, Chart, Line, Rule, Style
from progtrain.page.past import Past
from progtrain.page.scale import wide
from progtrain.report.rows import number

_STEPS = Axis("optimizer steps", "count", low=0.0)


def charts(past: Past) -> list[Chart]:
    """Those that the run has values for."""
    rules = tuple(_growths(past))
    primary = _chart(past, "metric", past.metric, [past.metric], rules)
    losses = [name for name in ("train/loss", "val/loss") if name != past.metric]
    rates = past.columns("learning_rate/")
    norms = [name for name in ("gradients/total",) if past.series(name)]
    found = [
        primary,
        _chart(past, "loss", "Loss", losses, rules),
        _params(past, rules),
        _alphas(past, rules),
        _chart(past, "rate", "Learning rate", rates, rules),
        _chart(past, "norm", "Gradient norm", norms, rules),
    ]
    return [chart for chart in found if not chart.empty]


def _chart(
    past: Past, name: str, title: str, columns: Sequence[str], rules: tuple[Rule, ...]
) -> Chart:
    """One line a column."""
    series = [(column, past.series(column)) for column in columns]
    shown = [(column, points) for column, points in series if points]
    lines = tuple(
        Line(
            column,
            column.removeprefix("learning_rate/"),
            _style(index),
            points,
            tip=column,
            label=len(shown) > 1,
        )
        for index, (column, points) in enumerate(shown)
    )
    values = [y for _, points in shown for _, y in points]
    better = "more is better" if past.mode == "max" else "less is better"
    label = better if name == "metric" else ""
    log = name in ("rate", "norm") and min(values, default=0.0) > 0 and wide(values)
    return Chart(name, title, _STEPS, Axis(label, log=log), lines, rules=rules)


def _params(past: Past, rules: tuple[Rule, ...]) -> Chart:
    """Parameters at every evaluation and every growth, a staircase."""
    points = list(past.series("params"))
    begin = number(past.begun.get("params"))
    if begin is not None:
        points.append((0.0, begin))
    for event in past.growths:
        step, after = number(event.get("step")), number(event.get("params_after"))
        if step is not None and after is not None:
            points = [p for p in points if p[0] != step] + [(step, after)]
    line = Line("params", "parameters", _style(0), tuple(sorted(points)), steps=True)
    axis = Axis("", "count", log=wide(y for _, y in points))
    return Chart("params", "Parameters", _STEPS, axis, (line,) if points else (), rules=rules)


def _alphas(past: Past, rules: tuple[Rule, ...]) -> Chart:
    """The strength of what each growth added, as its events tell it."""
    lines = [
        line for index, event in enumerate(past.growths) if (line := _alpha(past, index, event))
    ]
    shown = tuple(lines) if any(y < 1 for line in lines for _, y in line.points) else ()
    return Chart(
        "alpha",
        "Alpha: how much of a growth counts",
        _STEPS,
        Axis("", low=-0.03, high=1.06),
        shown,
        rules=rules,
        note="Known at the marks, where a phase began; straight between them, whatever the ramp.",
    )


def _alpha(past: Past, index: int, growth: Mapping[str, Any]) -> Line | None:
    which = growth.get("index")
    told = [
        (step, alpha)
        for event in past.events
        if event.get("index") == which and event.get("kind") in ("growth", "phase")
        if (step := number(event.get("step"))) is not None
        if (alpha := number(event.get("alpha"))) is not None
    ]
    last = next((life for life in past.lives() if life.get("index") == which), {})
    end, alpha = number(past.result.get("steps")), number(last.get("alpha"))
    if told and end is not None and alpha is not None and end > told[-1][0]:
        told.append((end, alpha))
    name = f"{index + 1} {growth.get('stage', '')}"
    style = Style(index % COLOURS + 1, index, index)
    return (
        Line(f"growth-{index}", name, style, tuple(told), tip=name, label=True, marks=True)
        if told
        else None
    )


def _growths(past: Past) -> Iterator[Rule]:
    for event in past.growths:
        step = number(event.get("step"))
        if step is not None:
            text = f"growth {event.get('stage', '')}: {event.get('what', '')}"
            yield Rule(step, text, key="growths", style=Style(2))


def _style(index: int) -> Style:
    return Style((1, 2, 3, 4, 5, 6, 7)[index % COLOURS], index, index)
