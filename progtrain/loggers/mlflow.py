"""MLflow: a run in a tracking store, by default the files `mlruns/` of the run's own directory.

Only the client is used (mlflow-skinny); there is no active run and no thread. A run that goes on
is the same run of MLflow, whose id is kept in `loggers/mlflow.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progtrain.errors import require
from progtrain.loggers.logger import (
    Book,
    Result,
    flat,
    milliseconds,
    needs,
    remember,
    remembered,
)

_ENVIRONMENT = {  # unless the user has said otherwise
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_STATUS = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_NO_NAME = re.compile(r"[^\w\-. /]")
_AT_ONCE = 100  # parameters of one request
_LONGEST = 6000  # characters of a parameter
_ARTIFACTS = ("events.jsonl", "metrics.csv", "config.yaml", "result.json")


@dataclass(frozen=True)
class MLflow:
    """Metrics by step, settings as parameters, growths as metrics and tags, rows as artifacts."""

    uri: str | None = None  # of a tracking store; None: files in the run's directory
    experiment: str = "progtrain"

    def __post_init__(self) -> None:
        needs("mlflow", "mlflow")
        good = self.uri is None or bool(self.uri.strip())
        require(good, "uri", self.uri, "the address of a tracking store, or null", "Try null.")
        require(bool(self.experiment.strip()), "experiment", self.experiment, "a name")

    def where(self, book: Book) -> str:
        return f"mlflow {self._store(book)}, experiment {self.experiment}, run {book.name}"

    def open(self, book: Book) -> Remote:
        return Remote(self._store(book), self.experiment, book)

    def _store(self, book: Book) -> str:
        return self.uri or (book.directory.absolute() / "mlruns").as_uri()


class Remote:
    """A run of MLflow."""

    forgets = False

    def __init__(self, uri: str, experiment: str, book: Book) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        self._directory: Path = book.directory
        kept = remembered(book, "mlflow")
        if kept.get("uri") == uri:
            self._id = str(kept["id"])
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._begun(experiment, book)
            remember(book, "mlflow", {"uri": uri, "id": self._id})
        self._tell_settings(dict(flat(book.settings)))

    def _begun(self, experiment: str, book: Book) -> str:
        known = self._client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else self._client.create_experiment(experiment)
        tags = {"progtrain.directory": str(book.directory.absolute())}
        return str(self._client.create_run(place, run_name=book.name, tags=tags).info.run_id)

    def _tell_settings(self, settings: Mapping[str, bool | float | str]) -> None:
        """Parameters of MLflow are for good: what a resumed run changes becomes a tag."""
        from mlflow.entities import Param

        texts = {_named(n): str(value)[:_LONGEST] for n, value in settings.items()}
        told: Mapping[str, str] = self._client.get_run(self._id).data.params
        new = [Param(name, text) for name, text in texts.items() if name not in told]
        for first in range(0, len(new), _AT_ONCE):
            self._client.log_batch(self._id, params=new[first : first + _AT_ONCE])
        for name, text in texts.items():
            if told.get(name, text) != text:
                self._client.set_tag(self._id, f"changed.{name}", text)

    def log(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        now = milliseconds()
        metrics = [Metric(_named(name), value, now, step) for name, value in values.items()]
        tags = [RunTag(f"{_named(name)}.{step}", text[:5000]) for name, text in texts.items()]
        self._client.log_batch(self._id, metrics=metrics, tags=tags)

    def finish(self, result: Result) -> None:
        self.log(result.step, result.figures, {})
        for name, text in result.texts.items():
            self._client.set_tag(self._id, _named(name), text)
        for name in _ARTIFACTS:
            if (self._directory / name).is_file():
                self._client.log_artifact(self._id, str(self._directory / name))
        self._client.set_terminated(self._id, _STATUS[result.status])


def _named(name: str) -> str:
    """A name that every store takes."""
    return _NO_NAME.sub("_", name)
