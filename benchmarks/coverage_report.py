"""What `coverage.py` has found out about one network: a row of its table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Outcome:
    """One kind of growth."""

    ok: bool = False
    note: str = ""
    error: float | None = None
    tried: bool = True

    def __str__(self) -> str:
        if not self.tried:
            return "–"
        size = "" if self.error is None else f" {self.error:.0e}"
        return f"{'yes' if self.ok else '**no**'}{size}{f' ({self.note})' if self.note else ''}"


@dataclass
class Report:
    """A row of the table."""

    model: str
    params: float = 0.0
    image: int = 0
    dtype: str = "float64"
    seconds: float = 0.0
    trace: float = 0.0
    noise: float = 0.0  # what rounding the input does to the output, relative
    growable: int = 0
    total: int = 0
    fixed: dict[str, str] = field(default_factory=dict)
    hidden: Outcome = field(default_factory=Outcome)
    stream: Outcome = field(default_factory=Outcome)
    depth: Outcome = field(default_factory=Outcome)
    trains: Outcome = field(default_factory=Outcome)  # after growing wider
    deep: Outcome = field(default_factory=Outcome)  # after growing deeper
    failure: str = ""

    @property
    def ok(self) -> bool:
        parts = (self.hidden, self.stream, self.depth, self.trains, self.deep)
        return not self.failure and all(part.ok or not part.tried for part in parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Report:
        kinds = ("hidden", "stream", "depth", "trains", "deep")
        return Report(**{k: Outcome(**v) if k in kinds else v for k, v in data.items()})
