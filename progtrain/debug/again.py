"""A run made anew beside the one that is under way."""

from __future__ import annotations

from contextlib import nullcontext
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
from progtrain.sharding import spread
from progtrain.start import fingerprint, new_run, new_setup
from progtrain.state import pack


@dataclass(frozen=True)
class Anew:
    """Makes the run of `parts` again; nothing of it is shown, stored or shared but the data."""

    parts: Parts
    batches: Batches
    start: Checkpoint | None  # where the run began, if it was resumed
    directory: Path  # of the run, which all its processes see

    def __call__(self, past: Machine | None = None) -> Machine:
        """From the start; or from a checkpoint of `past`, written to disk and read again."""
        saved = self.start if past is None else self._stored(past)
        engine = self.parts.hardware.open()  # a loss scaler of its own
        run = new_run(self.parts, engine, self.batches, saved)
        setup = new_setup(self.parts, engine, self.batches)
        begin(run, setup, ranked=True)
        spread(run, engine, self.parts.optimizer)
        return Machine(run, setup)

    def _stored(self, past: Machine) -> Checkpoint | None:
        """A collective call; rank 0 writes for all."""
        data, group = fingerprint(self.batches.sets), past.setup.engine.group
        own = TemporaryDirectory(dir=self.directory, prefix="again-") if group.first else None
        with own or nullcontext() as folder:
            place = Path(group.of_first(folder) or "")

            def store(run: Run) -> None:
                tensors, state = pack(run, past.setup.engine, {}, data)
                documents = {"state": state, "config": self.parts.config}
                if group.first:
                    write(place, run.clock.step, tensors, documents, 2)

            save(past.run, replace(past.setup, save=store), past.stepper.loss)
            group.barrier()  # it is written
            found = latest(place)
            group.barrier()  # and read
        return found
