"""Pages of comparisons: its numbers, nothing else; safe; readable with few arms and with many."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from page_kit import arm, comparison, many, run, three
from PIL import Image, ImageChops

from progtrain.comparison.result import Comparison, Estimate, Kind, Row
from progtrain.page import comparison as page
from progtrain.page import files, picture
from progtrain.page.arms import interval, looks
from progtrain.page.chart import INK, OKABE_ITO, Axis, Chart, Line, Spot, Style
from progtrain.page.curves import charts
from progtrain.page.heat import Heat, heat
from progtrain.page.scale import Scale, texts, ticks

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('x')</script> & \"quoted\" $x$ ]]> \x00\x1b[31m\u202e"


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.inside = text, False
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.values: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[name] or "" for name in ("src", "href", "xlink:href") if name in found]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
            self.inside = True
            self.values.append(found.get("data-value"))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.inside:
            self.rows[-1][-1] += data.strip("\n")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    @property
    def drawings(self) -> list[ElementTree.Element]:
        """Every drawing, read as strict XML."""
        found = re.findall(r'<svg xmlns="http://www.w3.org/2000/svg".*?</svg>', self.text, re.S)
        return [ElementTree.fromstring(text) for text in found]


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PNGs cost seconds; only tests of them draw them."""
    if "plots" not in request.node.name:
        for name in ("save", "save_heat"):
            monkeypatch.setattr(picture, name, lambda *_: None)


def written(told: Comparison, tmp_path: Path) -> Page:
    path = tmp_path / "page.html"
    page.write(told, path)
    return Page(path.read_text(encoding="utf-8"))


def drawing(seen: Page, name: str) -> ElementTree.Element:
    return next(each for each in seen.drawings if each.get("id") == name)


def of_arm(root: ElementTree.Element, key: str) -> list[ElementTree.Element]:
    groups = root.iter(f"{SVG}g")
    return [e for e in groups if e.get("data-arm") == key and "arm" in e.get("class", "").split()]


def test_page_tells_the_comparison(tmp_path: Path) -> None:
    told = three()
    seen = written(told, tmp_path)
    words = "".join(seen.words)
    assert told.verdict in words and told.title in words and told.commands[0] in words
    assert told.unfair[0].text in words
    body = seen.text[seen.text.index("<body>") :]
    assert body.index(told.verdict) < body.index("Reasons to distrust it") < body.index("<table")
    best = next(row for row in seen.rows if "growth=sequential" in row[0])
    assert best[1] == "3/3" and best[2] == "0.9440 ± 0.0040"
    assert best[3].startswith("+23 % [+11 %, +34 %]") and best[4] == "+7 % [−5 %, +34 %]"
    assert best[5].startswith("+0.0040 [−0.0060, +0.0140]")
    assert "p 0.013 (Holm 0.026), 3 pairs" in best[5]
    assert best[8:10] == ["50,000", "800 GFLOP"] and best[12] == "812"


def test_file_needs_no_network_and_ids_are_unique(tmp_path: Path) -> None:
    seen = written(three(), tmp_path)
    assert all(link.startswith("#") for link in seen.links)
    assert "://" not in seen.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert len(set(seen.ids)) == len(seen.ids)
    assert not {"img", "iframe", "object", "link", "base"} & {*seen.tags}
    assert seen.tags.count("script") == 1 and len(seen.text) < 400_000


def test_points_stand_where_the_numbers_are(tmp_path: Path) -> None:
    """Distances in the drawing are in the proportion of those of the numbers."""
    told = three()
    root = drawing(written(told, tmp_path), "frontier-wide")
    places: list[tuple[float, float]] = []
    for index in (0, 1, 5):
        moved = of_arm(root, f"a{index}")[0].find(f"{SVG}path[@class='mark']")
        assert moved is not None
        x, y = re.findall(r"[\d.]+", moved.get("transform", ""))
        places.append((float(x), float(y)))
    values = [(each.flops, each.quality) for each in (told.arms[i] for i in (0, 1, 5))]
    (x0, y0), (x1, y1), (x5, y5) = [(f.mean, q.mean) for f, q in values if f and q]
    (p0, q0), (p1, q1), (p5, q5) = places
    assert (p5 - p1) / (p0 - p1) == pytest.approx((x5 - x1) / (x0 - x1), abs=0.01)
    assert (q5 - q1) / (q0 - q1) == pytest.approx((y5 - y1) / (y0 - y1), abs=0.01)
    assert q5 < q0 < q1  # more is higher


def test_curve_is_the_mean_and_the_band_the_extremes() -> None:
    told = comparison(arm("one", Kind.GROWN, 0.9))
    line = charts(told, looks(told))[2].lines[0]
    last = [each.rows[-1].quality for each in told.arms[0].runs]
    assert line.points[-1] == (1000.0, pytest.approx(sum(last) / 3))
    assert line.band[-1] == (1000.0, pytest.approx(min(last)), pytest.approx(max(last)))
    stages = charts(told, looks(told))[0].rules
    assert [rule.at for rule in stages] == pytest.approx([0.09e12, 0.36e12])
    assert "deeper" in stages[0].text


def test_one_seed_has_no_band_and_no_bars(tmp_path: Path) -> None:
    told = comparison(arm("alone", Kind.GROWN, 0.9, seeds=1))
    seen = written(told, tmp_path)
    classes = [e.get("class") for root in seen.drawings for e in root.iter()]
    assert "line" in classes and "mark" in classes
    assert "band" not in classes and "error" not in classes
    row = next(row for row in seen.rows if row[0].strip().startswith("alone"))
    assert row[2] == "0.8960" and row[3].startswith("–")


def test_many_arms_are_grey_but_for_the_best(tmp_path: Path) -> None:
    told = many()
    dressed = looks(told)
    shown = [look for look in dressed if look.shown]
    assert len(dressed) == 60 and 3 <= len(shown) <= 6
    best = max(told.arms, key=lambda each: each.quality.mean if each.quality else 0.0)
    assert best in [look.arm for look in shown]
    assert [look.arm.kind for look in shown].count(Kind.BASELINE) == 1
    seen = written(told, tmp_path)
    assert len(seen.text) < 1_000_000
    for name in ("curve-flops-wide", "frontier-wide"):
        root = drawing(seen, name)
        assert {
            e.get("data-arm") for e in root.iter() if e.get("data-arm", "").startswith("a")
        } == {look.key for look in dressed}
    grey = [e for e in drawing(seen, "curve-flops-wide").iter() if e.get("class") == "arm cg"]
    assert len(grey) == 60 - len(shown)
    assert len([row for row in seen.rows if "grown" in row[0]]) == 58


def test_styles_differ_in_more_than_colour() -> None:
    styles = [look.style for look in looks(three())]
    grown = [style for style in styles if style.colour != INK]
    assert len({style.colour for style in grown}) == len({s.marker for s in grown}) == len(grown)
    inks = [style.dash for style in styles if style.colour == INK]
    assert len(set(inks)) == len(inks) == 4
    css = Path(page.__file__).parent / "templates" / "colours.css"
    light = css.read_text().split("@media")[0]
    assert [f"--c{i}: {colour};" in light for i, colour in enumerate(OKABE_ITO)] == [True] * 8


def test_hostile_names_are_text(tmp_path: Path) -> None:
    told = comparison(
        arm(HOSTILE, Kind.BASELINE, 0.9),
        replace(arm("b", Kind.GROWN, 0.91), name=HOSTILE + "b", verdict=HOSTILE),
    )
    bad = replace(told.arms[0].runs[0], status="failed", error=HOSTILE, folder=HOSTILE)
    broken = replace(told.arms[0], runs=(bad, *told.arms[0].runs[1:]), settings={HOSTILE: HOSTILE})
    told = replace(
        told,
        arms=(broken, told.arms[1]),
        title=HOSTILE,
        verdict=HOSTILE,
        metric=HOSTILE,
        commands=(HOSTILE,),
        unfair=(replace(told.unfair[0], text=HOSTILE, what=HOSTILE, arms=(HOSTILE,)),),
    )
    seen = written(told, tmp_path)
    assert seen.tags.count("script") == 1 and "<script>alert" not in seen.text
    assert len(seen.drawings) >= 8  # all of them parse
    assert "".join(seen.words).count("<script>alert('x')</script>") > 8


def test_failed_runs_and_numbers_that_are_none(tmp_path: Path) -> None:
    good, bad = arm("good", Kind.BASELINE, 0.9), arm("bad", Kind.GROWN, 0.91)
    nan = tuple(replace(row, quality=float("nan")) for row in bad.runs[1].rows)
    runs = (
        replace(
            bad.runs[0], status="failed", quality=None, flops=None, rows=(), error="loss is nan"
        ),
        replace(bad.runs[1], rows=nan, quality=float("nan")),
    )
    nothing = replace(
        bad,
        runs=runs,
        quality=None,
        flops=None,
        seconds=None,
        steps=None,
        params=None,
        peak_mib=None,
        saving=None,
        at_equal_flops=None,
        saving_note="no run came to its end",
    )
    seen = written(comparison(good, nothing), tmp_path)
    row = next(row for row in seen.rows if row[0].strip().startswith("bad"))
    assert row[1] == "1/2" and row[2] == "–" and "no run came to its end" in row[3]
    assert "loss is nan" in "".join(seen.words)
    assert not [v for v in seen.values if v in ("nan", "None", "inf")]
    assert not re.search(
        r"\bnan\b", "".join(e.get("d", "") for r in seen.drawings for e in r.iter())
    )


def test_comparison_of_nothing(tmp_path: Path) -> None:
    seen = written(comparison(), tmp_path)
    assert seen.drawings == [] and "How this was made" in "".join(seen.words)
    empty = replace(arm("x", Kind.GROWN, 0.9), runs=(), quality=None, at_equal_flops=None)
    assert written(comparison(replace(empty, flops=None)), tmp_path).rows


def test_less_may_be_better(tmp_path: Path) -> None:
    arms = (arm("low", Kind.GROWN, 0.30), arm("high", Kind.GROWN, 0.35))
    told = comparison(*arms, mode="min")
    seen = written(told, tmp_path)
    forest = drawing(seen, "forest-flops-wide")
    names = [e.text for e in forest.iter(f"{SVG}text") if e.text in ("low", "high")]
    assert names == ["low", "high"] and "left of 0 is better" in "".join(seen.words)
    upper = drawing(written(comparison(*arms), tmp_path), "forest-flops-wide")
    names = [e.text for e in upper.iter(f"{SVG}text") if e.text in ("low", "high")]
    assert names == ["high", "low"]


def test_forest_shows_interval_and_margin(tmp_path: Path) -> None:
    root = drawing(written(three(), tmp_path), "forest-flops-wide")
    bars = [e for e in root.iter(f"{SVG}line") if e.get("class") == "error"]
    shade = [e for e in root.iter(f"{SVG}rect") if e.get("class") == "shade"]
    assert len(bars) == 2 and len(shade) == 1
    width = abs(float(bars[0].get("x2", "")) - float(bars[0].get("x1", "")))
    # the interval is 0.02 wide, the margin 0.005 to both sides
    assert width / float(shade[0].get("width", "")) == pytest.approx(2.0, abs=0.05)


def test_grid_has_the_means_of_its_cells() -> None:
    told = many()
    grid = heat(told, looks(told))
    assert grid is not None and {grid.down, grid.across} == {"growth", "warmup"}
    settings = {"growth": "plateau", "warmup": "lr"}
    there = [
        each.quality.mean
        for each in told.arms
        if each.quality and settings.items() <= each.settings.items()
    ]
    value, _, count = grid.cells[settings[grid.down], settings[grid.across]]
    assert count == len(there) == 2 and value == pytest.approx(sum(there) / 2)
    best = max(grid.cells.values(), key=lambda cell: cell[0])
    assert best[1] == 1.0 and min(cell[1] for cell in grid.cells.values()) == 0.0
    low = heat(replace(told, mode="min"), looks(told))
    assert low is not None and max(low.cells.values(), key=lambda cell: cell[0])[1] == 0.0
    assert heat(three(), looks(three())) is None


def test_interval_with_one_end_is_drawn_to_it_and_told(tmp_path: Path) -> None:
    open_ended = replace(arm("a", Kind.GROWN, 0.9), saving=Estimate(-0.09, None, 0.39))
    root = drawing(written(comparison(open_ended), tmp_path), "forest-saved-wide")
    assert "−9 % [?, +39 %]" in [e.text for e in root.iter(f"{SVG}text")]
    (bar,) = [e for e in root.iter(f"{SVG}line") if e.get("class") == "error"]
    mark = of_arm(root, "a0")[0].find(f"{SVG}path[@class='mark']")
    assert mark is not None and f"translate({bar.get('x1')} " in mark.get("transform", "")


@pytest.mark.slow
def test_plots_lie_beside_the_page(tmp_path: Path) -> None:
    page.write(three(), tmp_path / "told.html")
    folder = tmp_path / "told_plots"
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {path.stem for path in folder.glob("*.png")}
    assert {"curve-flops", "curve-seconds", "curve-steps", "frontier", "forest-saved"} <= names
    for path in folder.glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert "--c1: #0072b2" in "".join(e.text or "" for e in root.iter(f"{SVG}style"))
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in folder.glob("*.png"))
    hostile = Chart("h", "$\\frac{", Axis("$"), Axis("_"), spots=(Spot("k", "$^", Style(), 1, 2),))
    files.write_plots([hostile], None, tmp_path / "other")
    assert (tmp_path / "other" / "h.png").stat().st_size > 1000


def test_plots_are_drawn_once_and_nothing_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for words is measured before: wide letters stand inside as narrow ones do."""
    drawn: list[Figure] = []
    draw: Any = Figure.draw

    def counted(own: Figure, renderer: Any) -> None:
        drawn.append(own)
        draw(own, renderer)

    monkeypatch.setattr(Figure, "draw", counted)
    wide, spots = "W" * 40, (Spot("k", "W" * 40, Style(1), 1, 0, (0.5, 2), None, label=True),)
    rows = Chart("rows", wide * 3, Axis(wide), Axis("", names=(wide, "a")), spots=spots)
    line = Line("k", wide, Style(2), ((0, 1e-9), (1, 2e-9)))
    curve = Chart("line", "t", Axis("x"), Axis("val/loss"), lines=(line,))
    cells = {(wide, "a"): (0.5, 0.5, 1)}
    grid = Heat("heat", "t", "down", "across", (wide, "b"), (wide, "a"), cells)
    files.write_plots([rows, curve], grid, tmp_path)
    assert len(drawn) == 3
    for name in ("rows", "line", "heat"):
        with Image.open(tmp_path / f"{name}.png") as opened:
            ink = ImageChops.invert(opened.convert("L")).getbbox()
            assert ink is not None and min(ink[:2]) > 3
            assert opened.width - ink[2] > 3 and opened.height - ink[3] > 3, name


@pytest.mark.parametrize(
    ("scale", "unit", "expected"),
    [
        (Scale(0, 1e12), "flops", ["0", "200 G", "400 G", "600 G", "800 G", "1 T"]),
        (Scale(0.9, 0.95), "number", ["0.90", "0.91", "0.92", "0.93", "0.94", "0.95"]),
        (Scale(0, 40000), "count", ["0", "10 k", "20 k", "30 k", "40 k"]),
        (Scale(1e9, 1e12, log=True), "flops", ["1 G", "10 G", "100 G", "1 T"]),
        (Scale(-0.1, 0.1), "number", ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
    ],
)
def test_ticks_are_round(scale: Scale, unit: str, expected: list[str]) -> None:
    assert texts(ticks(scale, 5), unit) == expected


def test_intervals_in_words() -> None:
    assert interval(Estimate(0.231, 0.114, 0.339), share=True) == "+23 % [+11 %, +34 %]"
    assert interval(Estimate(-0.0123)) == "−0.0123" and interval(None) == "–"
    assert interval(Estimate(-0.09, None, 0.39), share=True) == "−9 % [?, +39 %]"
    assert interval(Estimate(2e-5, -1e-5, 5e-5)) == "+2.00e−05 [−1.00e−05, +5.00e−05]"


def test_seeds_with_other_costs_share_the_range_that_all_cover() -> None:
    one, other = (run("a", seed, 0.9, 1e12, False) for seed in (0, 1))
    half = replace(other, rows=other.rows[:20])
    told = comparison(replace(arm("a", Kind.FIXED, 0.9), runs=(one, half)))
    line = charts(told, looks(told))[0].lines[0]
    assert line.points[-1][0] == pytest.approx(0.5e12)
    lonely = replace(one, rows=(Row(1, 2e12, 1.0, 0.5),))
    told = comparison(replace(arm("a", Kind.FIXED, 0.9), runs=(half, lonely)))
    assert len(charts(told, looks(told))[0].lines[0].points) == 1


def test_no_torch() -> None:
    """Pages are written of what lies on disk, at once."""
    import subprocess
    import sys

    code = (
        "import sys, progtrain.page.comparison, progtrain.page.run;"
        "print([n for n in ('torch', 'hydra', 'omegaconf', 'matplotlib') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
