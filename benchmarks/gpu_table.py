"""Rows of a table of measurements: each within a time limit, printed and stored as it is known."""

from __future__ import annotations

import gc
import json
import signal
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Table:
    """Rows as they become known, printed and stored at once."""

    path: Path | None
    seconds: int  # after which no row begins
    only: str = ""  # what the names of rows contain
    begun: float = field(default_factory=time.perf_counter)
    rows: list[dict[str, Any]] = field(default_factory=lambda: list[dict[str, Any]]())

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        told = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()]
        print("  ".join(told), flush=True)
        if self.path:
            self.path.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")

    def measure(self, names: dict[str, Any], work: Callable[[], dict[str, Any]], most: int) -> None:
        """A row by `work`, within `most` seconds."""
        if self.only not in " ".join(map(str, names.values())):
            return
        begun = time.perf_counter()
        if begun - self.begun > self.seconds:
            self.add({**names, "failed": "no time left"})
            return
        try:
            with limited(most):
                found = work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            found = {"failed": f"{type(error).__name__} at {where}: {error}"[:400]}
        self.add({**names, **found, "took": round(time.perf_counter() - begun, 1)})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def limited(seconds: int) -> Generator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
