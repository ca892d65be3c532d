"""A run made anew beside the one that is under way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from progtrain.boundary import save
from progtrain.build import Parts
from progtrain.checkpoint.format import Checkpoint
from progtrain.checkpoint.read import latest
from progtrain.checkpoint.write import write
from progtrain.curriculum.sight import begin
from progtrain.data.sets import Batches
from progtrain.machine import Machine
from progtrain.run import Run
from progtrain.start import fingerprint, new_run, new_setup
from progtrain.state import pack


@dataclass(frozen=True)
class Anew:
    """Makes the run of `parts` again; nothing of it is shown, stored or shared but the data."""

    parts: Parts
    batches: Batches
    start: Checkpoint | None  # where the run began, if it was resumed

    def __call__(self, past: Machine | None = None) -> Machine:
        """From the start; or from a checkpoint of `past`, written to disk and read again."""
        saved = self.start if past is None else self._stored(past)
        engine = self.parts.hardware.open()  # a loss scaler of its own
        run = new_run(self.parts, engine, self.batches, saved)
        setup = new_setup(self.parts, engine, self.batches)
        begin(run, setup, ranked=True)
        return Machine(run, setup)

    def _stored(self, past: Machine) -> Checkpoint | None:
        data = fingerprint(self.batches.sets)
        with TemporaryDirectory() as folder:

            def store(run: Run) -> None:
                tensors, state = pack(run, past.setup.engine, {}, data)
                documents = {"state": state, "config": self.parts.config}
                write(Path(folder), run.clock.step, tensors, documents, 2)

            save(past.run, replace(past.setup, save=store), past.stepper.loss)
            return latest(Path(folder))
