"""PNGs: nothing that is written around the axes is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib import image

from progtrain.page import picture
from progtrain.page.chart import Axis, Chart, Spot, Style
from progtrain.page.heat import Heat

LONG = "a setting whose name is longer than the axis along which it is written"


def heat(rows: int, columns: int) -> Heat:
    names = [tuple(f"{side}{i}" for i in range(n)) for side, n in (("r", rows), ("c", columns))]
    cells = {(r, c): (0.5, 0.5, 1) for r in names[0] for c in names[1]}
    return Heat("heat", "title", LONG, LONG, names[0], names[1], cells)


def chart(names: int) -> Chart:
    rows = tuple(f"row {i}" for i in range(names))
    spots = tuple(Spot(name, name, Style(1), float(i), float(i)) for i, name in enumerate(rows))
    return Chart("forest", "title", Axis(LONG), Axis(LONG, names=rows), spots=spots)


@pytest.mark.parametrize("drawn", [heat(1, 1), heat(2, 6), chart(2)], ids=["one", "wide", "rows"])
def test_labels_longer_than_their_axes_are_whole(drawn: Heat | Chart, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if isinstance(drawn, Heat):
        picture.save_heat(drawn, path)
    else:
        picture.save(drawn, path)
    pixels = image.imread(path)[..., :3]
    edges = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    assert all((edge == 1).all() for edge in edges)
