"""What the stages of a plan come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from progtrain.planning.foresee import Foreseen
from progtrain.planning.rows import Row, Span, Totals
from progtrain.planning.walk import Walked, times
from progtrain.run import Run
from progtrain.setup import Setup


@dataclass(frozen=True)
class Storage:
    """Checkpoints on disk."""

    checkpoint: int  # bytes of the largest one
    need: int
    free: int
    seconds: float  # of writing the largest one


def with_seconds(foreseen: Foreseen, setup: Setup, run: Run) -> list[Row]:
    """Rows with the seconds until the next stage, where those are known."""
    rows = list(foreseen.rows)
    for index, (row, walked) in enumerate(zip(rows, foreseen.walked, strict=False)):
        if row.step_seconds is None or row.steps is None:
            continue
        looks = times(walked.begin, walked.end, setup.train.evaluate_every, run.clock)
        seconds = walked.end.seconds - walked.begin.seconds + (row.growth_seconds or 0.0)
        rows[index] = replace(row, seconds=seconds + looks * (row.evaluation_seconds or 0.0))
    return rows


def totals(
    foreseen: Foreseen, setup: Setup, run: Run, storage: Storage, memory_free: int | None
) -> Totals:
    """The whole run, from where it is now. Behind the last stage whose time is known, the least is
    what it comes to if nothing more grows, the most if all grows at once."""
    rows, walked = foreseen.rows, foreseen.walked
    last, now, known = walked[-1], run.clock.now, walked[-1].known
    tail = rows[len(walked) - 1 :] if last.open else rows[-1:]
    flops = Span(last.end.flops - now.flops, _most_flops(last, tail) - now.flops)
    timed = known and all(row.step_seconds is not None for row in rows)
    training = _training(walked, tail) if timed else None
    evaluating = _evaluating(rows, walked, tail, setup, run) if timed else None
    growing = _growing(rows, len(walked)) if timed else None
    storing = None
    if timed:
        stored = 1 + times(now, last.end, setup.checkpoint.every, run.clock)
        storing = stored * storage.seconds
    seconds = None
    if training and evaluating and growing and storing is not None:
        parts = (training, evaluating, growing, Span(storing, storing))
        seconds = Span(sum(p.least for p in parts), sum(p.most for p in parts))
    sets = setup.batches.sets
    splits = (sets.train, sets.validation, *([sets.test] if sets.test is not None else []))
    on_device = setup.engine.settings.data_on_device
    return Totals(
        steps=last.end.step - now.step if known else None,
        flops=flops if known else None,
        seconds=seconds,
        training=training,
        evaluating=evaluating,
        growing=growing,
        storing=storing,
        checkpoint=storage.checkpoint,
        checkpoints=setup.checkpoint.keep,
        disk=storage.need,
        disk_free=storage.free,
        memory=max((row.peak or 0 for row in rows), default=None),
        memory_free=memory_free,
        data=sum(s.x.nbytes + s.y.nbytes for s in splits) if on_device else 0,
    )


def _most_flops(last: Walked, tail: Sequence[Row]) -> float:
    largest = max(row.flops_per_step for row in tail) / tail[0].flops_per_step
    return last.begin.flops + (last.end.flops - last.begin.flops) * largest


def _growing(rows: Sequence[Row], known: int) -> Span:
    each = [row.growth_seconds or 0.0 for row in rows]
    return Span(sum(each[:known]), sum(each))


def _training(walked: Sequence[Walked], tail: Sequence[Row]) -> Span:
    each = [one.end.seconds - one.begin.seconds for one in walked]
    slowest = max(row.step_seconds or 0.0 for row in tail) / (tail[0].step_seconds or 1.0)
    return Span(sum(each), sum(each[:-1]) + each[-1] * slowest)


def _evaluating(
    rows: Sequence[Row], walked: Sequence[Walked], tail: Sequence[Row], setup: Setup, run: Run
) -> Span:
    """Evaluations on the way, and those of the end (validation and test)."""
    every, test = setup.train.evaluate_every, setup.batches.sets.test
    looks = [times(one.begin, one.end, every, run.clock) for one in walked]
    each = [n * (row.evaluation_seconds or 0.0) for n, row in zip(looks, rows, strict=False)]
    share = 1 + (len(test) / len(setup.batches.sets.validation) if test is not None else 0)
    slowest = max(row.evaluation_seconds or 0.0 for row in tail)
    least = sum(each) + share * (tail[0].evaluation_seconds or 0.0)
    return Span(least, sum(each[:-1]) + (looks[-1] + share) * slowest)
