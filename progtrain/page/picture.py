"""Charts as PNG by matplotlib, for papers and chats; it is imported when the first is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from progtrain.page.chart import GREY, OKABE_ITO, Axis, Chart, Line, Rule, Spot, Style
from progtrain.page.heat import Heat
from progtrain.page.labels import cut
from progtrain.page.scale import Scale, scales, texts, ticks
from progtrain.report import units

_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)), (0, (9, 3)))
_MARKERS = ("o", "s", "D", "^", "P", "v")
_MUTED = "#5b6470"


def save(chart: Chart, path: Path) -> None:
    """Draw the chart into a PNG of about 1500 pixels' width."""
    from matplotlib.figure import Figure

    rows = len(chart.y.names)
    drawing: Any = Figure(figsize=(9, max(2.4, 1.2 + 0.28 * rows) if rows else 5.2))
    axes: Any = drawing.add_subplot()
    for rule in chart.rules:
        _rule(axes, rule)
    for line in chart.lines:
        _line(axes, line)
    for spot in chart.spots:
        _spot(axes, spot)
    x, y = scales(chart)
    _axis(axes.xaxis, chart.x, x, 8)
    _axis(axes.yaxis, chart.y, y, 7)
    axes.set_xlim(x.low, x.high)
    axes.set_ylim(y.low, y.high)
    axes.set_title(plain(cut(chart.title, 90)), loc="left", fontsize=11)
    axes.grid(color="#e9ecf0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    drawing.savefig(path, dpi=150, bbox_inches="tight")


def save_heat(heat: Heat, path: Path) -> None:
    """Draw the grid into a PNG."""
    from matplotlib.figure import Figure

    size = 2.2 + 1.0 * len(heat.columns), 1.4 + 0.42 * len(heat.rows)
    drawing: Any = Figure(figsize=size)
    axes: Any = drawing.add_subplot()
    missing = (0.0, -1.0, 0)
    shown = [[heat.cells.get((r, c), missing)[1] for c in heat.columns] for r in heat.rows]
    axes.imshow(shown, cmap="Blues", vmin=-0.05, vmax=1.3, aspect="auto")
    for i, row in enumerate(heat.rows):
        for j, column in enumerate(heat.columns):
            if (row, column) in heat.cells:
                text = units.metric(heat.cells[row, column][0])
                axes.text(j, i, text, ha="center", va="center", fontsize=8)
    columns = [plain(cut(name, 18)) for name in heat.columns]
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    rows = [plain(cut(name, 30)) for name in heat.rows]
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel(plain(heat.across), color=_MUTED)
    axes.set_ylabel(plain(heat.down), color=_MUTED)
    axes.set_title(plain(cut(heat.title, 90)), loc="left", fontsize=11)
    drawing.savefig(path, dpi=150, bbox_inches="tight")


def plain(text: str) -> str:
    """Text in which no character starts a formula."""
    return units.one_line(text).replace("$", r"\$")


def _colour(style: Style) -> str:
    return "#9aa3ad" if style.colour == GREY else OKABE_ITO[style.colour]


def _look(style: Style) -> dict[str, Any]:
    grey = style.colour == GREY
    return {
        "color": _colour(style),
        "linestyle": _DASHES[style.dash % len(_DASHES)],
        "linewidth": 0.7 if grey else 1.8,
        "alpha": 0.6 if grey else 1.0,
        "zorder": 2 if grey else 3,
    }


def _line(axes: Any, line: Line) -> None:
    if not line.points:
        return
    xs, ys = zip(*line.points, strict=True)
    named = {"label": plain(cut(line.name, 40))} if line.style.colour != GREY else {}
    draw = axes.step if line.steps else axes.plot
    more = {"where": "post"} if line.steps else {}
    draw(xs, ys, **_look(line.style), **named, **more)
    if line.band:
        xs, low, high = zip(*line.band, strict=True)
        axes.fill_between(xs, low, high, color=_colour(line.style), alpha=0.16, linewidth=0)


def _spot(axes: Any, spot: Spot) -> None:
    ends = (
        None if pair is None else [[value - pair[0]], [pair[1] - value]]
        for value, pair in ((spot.x, spot.x_range), (spot.y, spot.y_range))
    )
    x_error, y_error = ends
    look = _look(spot.style) | {
        "linestyle": "none",
        "marker": _MARKERS[spot.style.marker % len(_MARKERS)],
    }
    named = {"label": plain(cut(spot.name, 40))} if spot.label else {}
    axes.errorbar([spot.x], [spot.y], xerr=x_error, yerr=y_error, **look, **named)


def _rule(axes: Any, rule: Rule) -> None:
    colour = _colour(rule.style)
    if rule.until is not None:
        span = axes.axvspan if rule.vertical else axes.axhspan
        span(rule.at, rule.until, color=colour, alpha=0.09, linewidth=0)
    else:
        across = axes.axvline if rule.vertical else axes.axhline
        across(rule.at, color=colour, linewidth=0.9, linestyle=":", alpha=0.8)


def _axis(axis: Any, told: Axis, scale: Scale, count: int) -> None:
    if scale.log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_minor_formatter("")
    if told.names:
        names = [plain(cut(name, 34)) for name in told.names]
        axis.set_ticks(range(len(names)), labels=names)
    else:
        values = ticks(scale, count)
        axis.set_ticks(values, labels=texts(values, told.unit, scale.log))
    axis.set_label_text(plain(told.label), color=_MUTED)
    axis.set_tick_params(labelsize=8)
