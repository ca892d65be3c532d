"""The words of a run: numbers, growths, summaries; the same on screen and in plain lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from progtrain.best import ranked
from progtrain.clock import Unit
from progtrain.report.closing import MEASURED, best, pace
from progtrain.report.cost import shares
from progtrain.report.units import assigned, flops, metric, params, ratio, seconds
from progtrain.run import Phase

if TYPE_CHECKING:
    from progtrain.report.reporter import PlannedStage
    from progtrain.run import Event, Observation, Run

# a plan is read, not scrolled: a longer one shows its two ends
PLAN_ROWS = 24
_OUTCOMES = 8  # growths whose end the summary tells


@dataclass(frozen=True)
class Heading:
    """What is known before the run starts."""

    directory: Path  # where outputs go
    choices: Mapping[str, str]  # {group: option}
    facts: Sequence[str]  # versions, device; and `<label>: <fact>` of data, model, …
    resume_command: str  # continues this run, as one types it

    @property
    def closing(self) -> list[tuple[str, str]]:
        """Where the run lies and what may be done with it, as one copies it; its page is named
        once it is written (page/leave.py)."""
        return [
            ("outputs", str(self.directory)),
            ("resume", self.resume_command),
            ("test", f"progtrain task=test {assigned('checkpoint', self.directory)}"),
        ]

    @property
    def chosen(self) -> Mapping[str, str]:
        """The choices that say something: what is `none` is left out, but for growth."""
        keep = ("growth",)
        return {g: option for g, option in self.choices.items() if option != "none" or g in keep}

    def labelled(self) -> tuple[list[str], list[tuple[str, str]]]:
        """The facts without a label, and those with one."""
        pairs = [(fact, *fact.partition(": ")) for fact in self.facts]
        plain = [fact for fact, label, _, rest in pairs if not rest or " " in label]
        return plain, [(label, rest) for _, label, _, rest in pairs if rest and " " not in label]


@dataclass(frozen=True)
class Growth:
    """One growth in words, clause by clause."""

    head: str
    what: str
    cause: str
    rate: str
    size: str
    cost: str
    kept: str
    inherited: str
    metric: str
    took: str

    def sentence(self) -> str:
        clauses = (self.what, self.cause, self.size, self.cost, self.kept, self.inherited)
        told = [clause for clause in (*clauses, self.metric, self.rate, self.took) if clause]
        return f"{self.head}: " + "; ".join(told)


def stage(run: Run, num_planned: int) -> str:
    """`stage 2/4`; a run that grew past its plan counts on alone."""
    now = len(run.grown) + 1
    return f"stage {now}/{num_planned}" if now <= num_planned else f"stage {now}"


def phase_now(run: Run) -> Phase:
    """The phase of the youngest growth that is alive; `INTEGRATED` where nothing is under way."""
    return run.living[-1].phase if run.living else Phase.INTEGRATED


def life(run: Run) -> str:
    """`warmup α 0.43`, with `+1` where an older growth is alive too; `steady` for none."""
    if not run.living:
        return "steady"
    youngest = run.living[-1]
    words = youngest.phase.value
    if youngest.phase is Phase.WARMUP:
        words += f" α {youngest.alpha:.2f}"
    older = len(run.living) - 1
    return f"{words} +{older}" if older else words


def view(run: Run) -> list[str]:
    """What the coming step sees of the data, where that is not all of it: `data 40%`, `16 px`."""
    seen = run.view
    told = [f"data {seen.share:.0%}"] if seen.share < 1 else []
    told += [f"{seen.side} px"] if seen.side is not None else []
    told += [f"length {seen.length}"] if seen.length is not None else []
    return told + ([f"batch {run.batch_size:,}"] if seen.batch_size is not None else [])


def growth(run: Run, event: Event) -> Growth:
    epoch = run.clock.count(event.moment, Unit.EPOCH)
    sizes = ratio(event.params_before, event.params_after)
    costs = ratio(event.flops_before, event.flops_after)
    promise = "promised to stay" if event.promised else "no promise"
    return Growth(
        head=f"growth {event.index + 1} {event.stage} at step {event.moment.step:,}"
        f" (epoch {epoch:.1f})",
        what=event.edit.brief(),
        cause=f"because {event.cause or 'it was due'}",
        rate=f"learning rate ×{event.rate:.3g} of its base",
        size=f"{event.params_before:,} → {params(event.params_after)} ({sizes})",
        cost=f"{flops(event.flops_before)} → {flops(event.flops_after)} per sample ({costs})",
        kept=f"output moved by {event.output_change:.1e}, {event.preservation_error:.1e} of its"
        f" size ({promise}), loss {metric(event.loss_before)} → {metric(event.loss_after)}",
        inherited=event.inherited.describe() if event.inherited else "",
        metric=f"{run.metric} {metric(event.metric_before)} → {metric(event.metric_after)}",
        took=f"took {seconds(event.seconds)}",
    )


def recovery_steps(event: Event) -> int | None:
    """Optimizer steps until the metric was back; None while it is not."""
    return event.recovered.step - event.moment.step if event.recovered else None


def outcome(event: Event) -> str:
    """How a growth ended, for the summary: `1 wider recovered after 40 steps, worth +0.012`."""
    if event.phase is Phase.ROLLED_BACK:
        lost = f", {flops(event.lost)} lost" if event.lost else ""
        return f"{event.index + 1} {event.stage} undone{lost}"
    steps = recovery_steps(event)
    back = "not recovered" if steps is None else f"recovered after {steps:,} steps"
    worth = "" if event.contribution is None else f", worth {event.contribution:+.4g}"
    return f"{event.index + 1} {event.stage} {back}{worth}"


def advanced(event: Event) -> str:
    name = f"growth {event.index + 1} {event.stage}"
    if event.phase is Phase.ROLLED_BACK:
        lost = f", {flops(event.lost)} lost" if event.lost else ""
        return f"{name} is rolled back at step {event.since.step:,}: {event.undone}{lost}"
    if event.phase is Phase.INTEGRATED:
        return f"{name} is integrated at step {event.since.step:,}"
    return f"{name} enters {event.phase.value} at step {event.since.step:,}"


def evaluation(run: Run, seen: Observation, is_best: bool, width: int | None = None) -> str:
    """The primary metric and the loss, then every other one as long as the line has room."""
    first = dict.fromkeys([run.metric, *(name for name in ("val/loss",) if name in seen.metrics)])
    told = [f"{name} {metric(seen.metrics.get(name))}" for name in first]
    if is_best:
        told[0] += " (best so far)"
    line = f"epoch {seen.epoch:.1f}, step {seen.moment.step:,}: " + ", ".join(told)
    others = [
        f", {name} {metric(value)}"
        for name, value in seen.metrics.items()
        if name not in first and not name.startswith(MEASURED)
    ]
    if width is None or len(line + "".join(others)) <= width:
        return line + "".join(others)
    for index, other in enumerate(others):
        left_out = f", {len(others) - index} more in metrics.jsonl"
        if len(line + other + left_out) > width:
            return line + left_out
        line += other
    return line


def is_better(run: Run, new: float | None, old: float | None) -> bool:
    if new is None or new != new:
        return False
    return old is None or (new > old if run.mode == "max" else new < old)


def params_start(run: Run) -> int:
    """The size before anything grew."""
    return run.events[0].params_before if run.events else run.params


def summary(run: Run) -> list[tuple[str, str]]:
    """The closing words, `(label, sentence)`."""
    stop, grown_out = run.stopped, run.grown_out
    start, now = params_start(run), run.clock.now
    undone = len(run.events) - len(run.grown)
    return [
        ("stopped", f"{stop.name}: {stop.value}" if stop else "No reason was given."),
        (
            "growing",
            f"{grown_out.name}: {grown_out.value}" if grown_out else "Growth had not ended.",
        ),
        ("growths", f"{len(run.grown)}" + (f", {undone} undone" if undone else "")),
        *([("each", _outcomes(run.events))] if run.events else []),
        ("size", f"{start:,} → {params(run.params)} ({ratio(start, run.params)})"),
        (
            "metric",
            f"{run.metric} {metric(run.last_metric)} at the end, {metric(run.best_metric)} at best",
        ),
        *([("test", _metrics(run.test))] if run.test else []),
        *([("best", best(run))] if ranked(run) else []),
        (
            "cost",
            f"{flops(now.flops)} of training in {seconds(now.seconds)}, growing included;"
            f" {now.step:,} steps, {run.clock.epoch:.1f} epochs{speed(run)}",
        ),
        *([("spent on", spent)] if (spent := shares(run)) else []),
        *([("speed", pace(run.spent.summary()))] if run.spent.measured else []),
    ]


def speed(run: Run) -> str:
    """Training samples a second, where any time was measured."""
    now = run.clock.now
    return f", {now.samples / now.seconds:,.0f} samples/s" if now.seconds > 0 else ""


def _outcomes(events: Sequence[Event]) -> str:
    """The last ones; a long run has had many."""
    told = [outcome(event) for event in events[-_OUTCOMES:]]
    earlier = len(events) - len(told)
    return "; ".join([*([f"{earlier} earlier"] if earlier else []), *told])


def _metrics(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {metric(value)}" for name, value in values.items())


def unfinished(run: Run) -> str:
    return f"Ended early at step {run.clock.step:,}. If a checkpoint was written, this continues:"


def taught(size: int) -> str:
    """What teachers take, where there are some."""
    return f"; teachers {size / 2**20:,.2f} MiB" if size else ""


def planned(plan: Sequence[PlannedStage]) -> list[tuple[str, str, str, str]]:
    """Rows of the plan: name, what it adds, parameters and FLOPs with × the first stage."""
    rows = [
        (
            row.name,
            row.what + taught(row.teachers),
            f"{row.params:,} ({ratio(plan[0].params, row.params)})",
            f"{flops(row.flops)} ({ratio(plan[0].flops, row.flops)})",
        )
        for row in plan
    ]
    if len(rows) <= PLAN_ROWS:
        return rows
    half = PLAN_ROWS // 2
    left_out = ("…", f"{len(rows) - 2 * half} more stages", "…", "…")
    return [*rows[:half], left_out, *rows[-half:]]
