"""TensorBoard: event files that `tensorboard --logdir outputs` shows.

They lie in `tensorboard/` of the run's directory. A run that goes on writes another file there,
which tells TensorBoard to drop what had been written behind the step where it goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from progtrain.loggers.logger import Book, Result, flat, needs

_FOLDER = "tensorboard"


@dataclass(frozen=True)
class TensorBoard:
    """Scalars by step, growths as text and as a step function, settings as hyperparameters."""

    def __post_init__(self) -> None:
        needs("tensorboard", "tensorboard")

    def where(self, book: Book) -> str:
        return f"tensorboard --logdir {book.directory / _FOLDER}"

    def open(self, book: Book) -> Board:
        return Board(book)


class Board:
    """Open event files."""

    forgets = True

    def __init__(self, book: Book) -> None:
        from torch.utils.tensorboard import SummaryWriter

        behind = book.step + 1 if book.step else None
        self._writer: Any = SummaryWriter(str(book.directory / _FOLDER), purge_step=behind)
        self._settings = dict(flat(book.settings))
        if not book.step:
            self._begin(dict(self._settings))

    def _begin(self, settings: dict[str, bool | float | str]) -> None:
        from torch.utils.tensorboard.summary import hparams

        # the figures that the table shows beside the settings are scalars of the same names
        shown = {str(settings.get("train.metric", "val/loss")): 0.0, "growth/params": 0.0}
        for record in hparams(settings, shown):
            self._writer.file_writer.add_summary(record)
        lines = [f"    {name}: {value}" for name, value in settings.items()]
        self._writer.add_text("settings", "\n".join(lines), 0)
        self._writer.flush()

    def log(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        for name, text in texts.items():
            self._writer.add_text(name, text, step)
        self._writer.flush()

    def finish(self, result: Result) -> None:
        for name, value in result.figures.items():
            self._writer.add_scalar(name, value, result.step)
        told = {"status": result.status, **dict(result.texts)}
        lines = [f"    {name}: {text}" for name, text in told.items()]
        self._writer.add_text("result", "\n".join(lines), result.step)
        self._writer.close()
