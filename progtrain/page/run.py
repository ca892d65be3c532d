"""One run as one HTML file, out of what lies in its directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progtrain.page import run_charts
from progtrain.page.document import HALF, document, figure
from progtrain.page.past import Past, read, typed
from progtrain.report import units
from progtrain.report.rows import number

NAME = "report.html"
_TOLD = 300  # notes and findings that are shown, the last ones


@dataclass(frozen=True)
class Size:
    """The network between two growths; `share` is that of the largest, in per cent."""

    name: str
    what: str
    step: str
    params: str
    flops: str
    share: float
    undone: bool


def write_run(folder: Path) -> Path:
    """Write `report.html` of the run in `folder`, and return its path.

    Raises `FileNotFoundError` where no run lies, `OSError` where the page cannot be written.
    """
    past = read(folder)
    names = [("Final", past.result.get("metrics")), ("Test", past.result.get("test"))]
    measured = past.result.get("measured")
    content = document(
        "run.html",
        title=folder.resolve().name,
        status=str(past.result.get("status", "not over")),
        error=str(past.result.get("error", "")),
        sentence=_sentence(past),
        facts=list(_facts(past)),
        figures=[figure(chart, HALF, 300) for chart in run_charts.charts(past)],
        sizes=_sizes(past),
        growths=[_growth(event, past) for event in past.growths],
        told=_notes(past),
        metrics=[(name, _numbers(found)) for name, found in names if isinstance(found, dict)],
        measured=_numbers(measured) if isinstance(measured, dict) else [],
        command=typed(past),
        choices=_choices(past),
        settings=past.settings,
    )
    path = folder / NAME
    draft = path.with_suffix(".tmp")
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)
    return path


def _sentence(past: Past) -> str:
    """What became of the run."""
    last, best = number(past.result.get("metric")), number(past.result.get("best_metric"))
    when = "at the end" if past.result.get("status") == "done" else "so far"
    told = [f"{past.metric} {units.metric(last)} {when}, {units.metric(best)} at best."]
    lives = past.lives()
    undone = sum(bool(life.get("undone")) for life in lives)
    if lives:
        kept = len(lives) - undone
        word = "growth" if kept == 1 else "growths"
        told.append(f"{kept} {word} stayed" + (f", {undone} undone." if undone else "."))
    else:
        told.append("The network did not grow.")
    lost = number(past.result.get("lost_flops"))
    if lost:
        told.append(f"{units.flops(lost)} were spent on growths that were given up.")
    return " ".join(told)


def _facts(past: Past) -> Iterator[tuple[str, str]]:
    """Headline figures, `(number, what it is)`."""
    result = past.result
    better = "more is better" if past.mode == "max" else "less is better"
    yield units.metric(number(result.get("metric"))), f"{past.metric}, {better}"
    start, end = number(result.get("params_start")), number(result.get("params"))
    if start is not None and end is not None:
        grown = f"{start:,.0f} → {end:,.0f}" if start != end else f"{end:,.0f}"
        yield grown, "parameters"
    flops, seconds = number(result.get("flops")), number(result.get("seconds"))
    if flops is not None:
        yield units.flops(flops), "compute, growing included"
    if seconds is not None:
        yield units.seconds(seconds), "of training"
    steps, epochs = number(result.get("steps")), number(result.get("epochs"))
    if steps is not None and epochs is not None:
        yield f"{steps:,.0f}", f"steps, {epochs:.1f} epochs"
    seed = result.get("seed", past.begun.get("seed"))
    if seed is not None:
        yield str(seed), "seed"
    stop = result.get("stop")
    if stop:
        yield str(stop).lower().replace("_", " "), "why it stopped"


def _sizes(past: Past) -> list[Size]:
    """The network at the start and after each growth."""
    begin = past.begun
    found: list[tuple[str, str, Mapping[str, Any], str, str]] = []
    found.append(("start", "", begin, "params", "flops_per_sample"))
    for event in past.growths:
        words = str(event.get("what", ""))
        found.append((str(event.get("stage", "")), words, event, "params_after", "flops_after"))
    params = [number(event.get(key)) or 0.0 for _, _, event, key, _ in found]
    gone = {life.get("index") for life in past.lives() if life.get("undone")}
    return [
        Size(
            name,
            what,
            f"{number(event.get('step')) or 0:,.0f}",
            f"{size:,.0f}",
            units.flops(number(event.get(flops)) or 0.0),
            round(100 * size / (max(params) or 1.0), 2),
            bool(what) and event.get("index") in gone,
        )
        for (name, what, event, _, flops), size in zip(found, params, strict=True)
    ]


def _growth(event: Mapping[str, Any], past: Past) -> tuple[str, ...]:
    """A row of the table of growths."""
    life = next((x for x in past.lives() if x.get("index") == event.get("index")), event)
    recovery = number(life.get("recovery_steps"))
    worth = number(life.get("contribution"))
    moved, loss = number(event.get("output_change")), number(event.get("probe_loss_before"))
    after = number(event.get("probe_loss_after"))
    undone = str(life.get("undone") or "")
    lost = number(life.get("lost_flops"))
    ended = f"undone: {undone}" if undone else str(life.get("phase", units.MISSING))
    return (
        str((event.get("index") or 0) + 1),
        str(event.get("stage", "")),
        f"{number(event.get('step')) or 0:,.0f}",
        str(event.get("cause") or "it was due"),
        _pair(event, "params_before", "params_after", lambda value: f"{value:,.0f}"),
        _pair(event, "flops_before", "flops_after", units.flops),
        _pair(event, "metric_before", "metric_after", units.metric),
        f"{units.metric(loss)} → {units.metric(after)}",
        units.MISSING if moved is None else f"{moved:.1e}",
        units.MISSING if recovery is None else f"{recovery:,.0f} steps",
        units.MISSING if worth is None else f"{worth:+.4g}",
        units.flops(number(event.get("growth_flops")) or 0.0),
        units.seconds(number(event.get("growth_seconds")) or 0.0),
        ended + (f", {units.flops(lost)} lost" if lost else ""),
    )


def _pair(event: Mapping[str, Any], one: str, other: str, text: Any) -> str:
    before, after = number(event.get(one)), number(event.get(other))
    told = [units.MISSING if value is None else text(value) for value in (before, after)]
    return " → ".join(told)


def _notes(past: Past) -> list[tuple[str, str, str]]:
    """Step, kind and words of everything that was said, oldest first."""
    said = [event for event in past.events if event.get("text")]
    return [
        (f"{number(e.get('step')) or 0:,.0f}", str(e.get("kind", "")), str(e["text"]))
        for e in said[-_TOLD:]
    ]


def _numbers(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name), units.metric(number(value))) for name, value in found.items()]


def _choices(past: Past) -> list[tuple[str, str]]:
    """The options that say something."""
    told = past.result.get("choices") or past.begun.get("choices")
    if not isinstance(told, dict):
        return []
    return [
        (str(k), str(v).replace(",", ", ")) for k, v in told.items() if v != "none" or k == "growth"
    ]
