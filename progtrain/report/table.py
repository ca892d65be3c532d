"""`metrics.csv`: the rows of `metrics.jsonl` as a table, in columns that grow with them.

It follows from the rows alone: a run that goes on makes it anew from those that were kept, and so
does a row with a name that no row before it had.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from progtrain.run import Json

TABLE = "metrics.csv"


class Table:
    """The table of the rows in the file `rows`; what lies there already is in it."""

    def __init__(self, rows: Path) -> None:
        self._rows, self._path = rows, rows.with_name(TABLE)
        self._names: list[str] = []
        self._file: TextIO | None = None
        self._renew()

    def add(self, row: Mapping[str, Json]) -> None:
        """One more row, which `rows` holds by now; on disk when the call returns."""
        if set(row) <= set(self._names) and self._file is not None:
            csv.writer(self._file).writerow(self._cells(row))
            self._file.flush()
        else:
            self._renew()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _renew(self) -> None:
        """Write all of it in one piece, and go on behind it."""
        self.close()
        kept = [json.loads(line) for line in self._rows.read_text(encoding="utf-8").splitlines()]
        self._names = list(dict.fromkeys(name for row in kept for name in row))
        draft = self._path.with_suffix(".csv.tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if self._names:
                writer.writerow(self._names)
            writer.writerows(self._cells(row) for row in kept)
        draft.replace(self._path)
        self._file = self._path.open("a", newline="", encoding="utf-8")

    def _cells(self, row: Mapping[str, Json]) -> list[Json]:
        return ["" if row.get(name) is None else row[name] for name in self._names]
