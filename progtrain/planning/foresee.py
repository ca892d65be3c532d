"""The whole plan: grow a copy stage by stage as the run would, and see what each stage takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from progtrain.account import GROWTH
from progtrain.boundary import grow
from progtrain.data.sets import Batches
from progtrain.errors import NothingToGrowError, settings_of
from progtrain.flops import check_flops
from progtrain.growth.controls import Controls
from progtrain.growth.declared import pass_over
from progtrain.growth.life import first_phase, lengths
from progtrain.growth.plan import Ahead, with_values
from progtrain.growth.trial import copied
from progtrain.planning import when
from progtrain.planning.counted import activations, counted_held
from progtrain.planning.disk import checkpoint_bytes
from progtrain.planning.fit import check_room, fitting
from progtrain.planning.memory import held, measured
from progtrain.planning.rehearse import first_batch, rehearsed, settled
from progtrain.planning.rows import Row
from progtrain.planning.walk import Walked, walk
from progtrain.report.many import Many
from progtrain.run import Run, Stage
from progtrain.setup import Setup

_MOST = 100  # stages that are worth planning


@dataclass(frozen=True)
class Foreseen:
    """Rows, the stretch of the run that each covers where that is known, and what is odd."""

    rows: list[Row]
    walked: list[Walked]  # one for each row until the first whose end nobody knows, that one too
    warnings: list[str]


class Foresight:
    """Plans one run; what it trains and grows is a copy."""

    def __init__(
        self, run: Run, setup: Setup, timed: int | None, counted_by: Ahead = with_values
    ) -> None:
        """`timed` are the steps of each stage that are timed; None: nothing is computed, and a copy
        is grown by `counted_by`."""
        self.counted_by = counted_by
        self.setup = replace(setup, reporter=Many([]), save=lambda run: None)
        self.timed = timed
        self.run = copied(run)
        self.run.ways_back = dict(run.ways_back)
        if self.run.order is None:
            self.run.order = torch.arange(len(setup.batches.sets.train))
        self.rows, self.walked = list[Row](), list[Walked]()
        self.warnings = list[str]()

    def go(self) -> Foreseen:
        """Every stage to come; raises what a run would raise, and `EnvironmentProblem` where a
        stage does not fit into the device."""
        name = "start" if not self.run.events else "now"
        self._add(Row(name, "", 0, 0, 0, "now", held(self.run, self.setup.engine.device)))
        while len(self.rows) <= _MOST:
            stage = self._next()
            if stage is None:
                break
            try:
                self._grow(stage)
            except NothingToGrowError as error:
                pass_over(self.run, stage, error)
        return Foreseen(self.rows, self.walked, self.warnings)

    def _next(self) -> Stage | None:
        """What grows next, whenever that is; None where nothing does."""
        with settings_of("growth"):
            if self.walked and self.walked[-1].open:
                return self._upcoming()
            begin = self.run.clock.now
            walked = walk(self.run, self.setup, self.rows[-1].step_seconds)
            self._note(walked)
            if walked.due is not None:
                return walked.due
            coming = self._upcoming() if self.run.grown_out is None else None
            if coming is None or walked.asked:
                self.run.clock.now = begin
                return coming
            self.warnings.append(self._too_late(coming, walked))
            return None

    def _upcoming(self) -> Stage | None:
        stage = self.setup.growth.upcoming(self.run)
        return stage if isinstance(stage, Stage) else None

    def _too_late(self, stage: Stage, walked: Walked) -> str:
        waits = when.awaited(self.setup.growth, stage)
        more = "" if len(self.rows) > 1 else " Nothing will grow."
        return (
            f"The run ends at step {walked.end.step:,}, before {stage.name} grows ({waits}).{more}"
            " Raise train.duration, stop.max_flops or stop.max_seconds, or grow earlier."
        )

    def _note(self, walked: Walked) -> None:
        """What is known now of the last row."""
        self.walked.append(walked)
        if walked.open:
            return
        row = self.rows[-1]
        began = row.begins or walked.begin
        self.rows[-1] = replace(
            row,
            steps=walked.steps,
            flops=walked.end.flops - began.flops,
        )

    def _grow(self, stage: Stage) -> None:
        begins = None if self.walked[-1].open else self.run.clock.now
        cause = when.at(begins, self.run) if begins else when.awaited(self.setup.growth, stage)
        if self.walked[-1].asked and begins:
            cause += " at the latest"
        trial = self._charge_trial(stage)
        row = Row(stage.name, "", 0, 0, 0, cause, self.rows[-1].held, begins=begins)
        with fitting(stage.name, self.rows, self.setup):
            row = self._grown(row, stage) if self.timed else self._counted_growth(row, stage)
        if row.growth_seconds is not None:
            row = replace(row, growth_seconds=row.growth_seconds + trial)
        self._add(row)

    def _charge_trial(self, stage: Stage) -> float:
        """Charge what trying candidates costs, as if each were like the network of now; seconds."""
        if stage.trial is None:
            return 0.0
        steps = stage.trial.steps * (len(stage.candidates) + stage.trial.include_none)
        seconds = steps * (self.rows[-1].step_seconds or 0.0)
        self.run.clock.charge(GROWTH, steps * self.run.step_flops, seconds)
        return seconds

    def _grown(self, row: Row, stage: Stage) -> Row:
        run, setup, device = self.run, self.setup, self.setup.engine.device
        batches = setup.batches
        part = first_batch(batches.sets.validation, setup.num_classes)
        short = Batches(replace(batches.sets, validation=part), batches.seed, batches.device)
        before, begun = held(run, device).between, time.perf_counter()
        with measured(device) as peak:
            controls = Controls(run.model, run.events, setup.warmup)
            event = grow(run, replace(setup, batches=short), stage, controls)
        settled(setup)
        took = time.perf_counter() - begun
        whole = 2 * (self.rows[-1].evaluation_seconds or 0.0)
        rest = whole * (1 - len(part) / len(batches.sets.validation))
        memory = before + peak.bytes
        what = event.edit.brief()
        return replace(row, what=what, growth_seconds=took + rest, growth_memory=memory)

    def _counted_growth(self, row: Row, stage: Stage) -> Row:
        before, host = self.rows[-1].held, self.run.model
        grown, self.run = self.counted_by(self.run, self.setup, stage)
        checks = check_flops(host, grown.model, self.run.probe.x)
        self.run.clock.charge(GROWTH, checks)
        event = self.run.events[-1]
        self.run.events[-1] = replace(event, phase=first_phase(lengths(self.setup, event)))
        memory = before.between + counted_held(self.run, self.setup).weights
        return replace(row, what=grown.edit.brief(), growth_memory=memory)

    def _add(self, row: Row) -> None:
        """The row with what its stage takes."""
        run, setup = self.run, self.setup
        row = replace(row, params=run.params, flops_per_sample=run.flops)
        with fitting(row.name, self.rows, setup):
            check_room(row.name, run, setup)
            row = self._taken(row) if self.timed else self._counted(row)
        self.rows.append(replace(row, flops_per_step=run.step_flops))

    def _taken(self, row: Row) -> Row:
        assert self.timed is not None
        steps = rehearsed(self.run, self.setup, self.timed, first=not self.rows)
        between = steps.held.between
        return replace(
            row,
            held=steps.held,
            step_seconds=steps.step_seconds,
            step_memory=steps.step_memory,
            activations=max(0, steps.step_memory - between),
            evaluation_seconds=steps.evaluation_seconds,
            evaluation_memory=steps.evaluation_memory,
            checkpoint=checkpoint_bytes(self.run, self.setup.engine),
        )

    def _counted(self, row: Row) -> Row:
        run, setup = self.run, self.setup
        kept = counted_held(run, setup)
        saved = activations(run.model, run.probe.x, run.batch_size // run.accumulate)
        memory = kept.between + saved
        disk = kept.still
        return replace(row, held=kept, step_memory=memory, activations=saved, checkpoint=disk)
