"""Weights & Biases: a run that its service writes into `wandb/` of the run's directory.

Offline (the default) needs no account and sends nothing; `wandb sync` uploads later. A run that
goes on has the same id, which is kept in `loggers/wandb.json`.
"""

from __future__ import annotations

import netrc
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from progtrain.errors import ConfigError, require
from progtrain.loggers.logger import Book, Result, needs, remember, remembered

_EXIT_CODES = {"done": 0, "interrupted": 130, "failed": 1}
_HOST = "https://api.wandb.ai"
_PATIENCE = 60  # seconds for a connection, and for what is still to be sent at the end


@dataclass(frozen=True)
class WandB:
    """Rows with a `step`, settings as config, growths as rows, the result as summary."""

    mode: str = "offline"  # or online
    project: str = "progtrain"
    entity: str | None = None  # user or team; None: the account's own
    group: str | None = None  # gathers runs; None: none
    tags: Sequence[str] = ()  # words to find the run by

    def __post_init__(self) -> None:
        needs("wandb", "wandb")
        modes = ("offline", "online")
        require(self.mode in modes, "mode", self.mode, "offline or online")
        require(bool(self.project.strip()), "project", self.project, "a name", "Try progtrain.")
        if self.mode == "online" and not _logged_in():
            raise ConfigError(
                "logger.wandb.mode=online needs an account: set WANDB_API_KEY or run `wandb login`."
                " logger.wandb.mode=offline needs none."
            )

    def where(self, book: Book) -> str:
        if self.mode == "online":
            return f"wandb project {self.project}, run {book.name}"
        return f"wandb offline; to upload: wandb sync {book.directory}/wandb/offline-run-*"

    def open(self, book: Book) -> Sent:
        return Sent(self, book)


class Sent:
    """A run of Weights & Biases."""

    forgets = False

    def __init__(self, logger: WandB, book: Book) -> None:
        # unless the user has said otherwise: no reports on errors, nothing outside of the run
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_CACHE_DIR", str(book.directory / "wandb" / "cache"))
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=_PATIENCE,
            finish_timeout=_PATIENCE,
        )
        name = remembered(book, "wandb").get("id") or secrets.token_hex(4)
        self._run: Any = wandb.init(
            id=str(name),
            resume="allow" if logger.mode == "online" else None,
            mode=logger.mode,  # pyright: ignore[reportArgumentType]
            dir=str(book.directory),
            project=logger.project,
            entity=logger.entity,
            group=logger.group,
            tags=list(logger.tags),
            name=book.name,
            config=dict(book.settings),
            allow_val_change=True,
            settings=settings,
        )
        remember(book, "wandb", {"id": str(name)})
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        self._run.log({"step": step, **values, **texts})

    def finish(self, result: Result) -> None:
        if result.status != "failed":
            self._run.summary.update({**dict(result.figures), **dict(result.texts)})
        self._run.finish(exit_code=_EXIT_CODES[result.status])


def _logged_in() -> bool:
    """Whether there is a key, without a question to the user or to the network."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _HOST)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
