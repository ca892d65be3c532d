"""Law 6: the phases that a run goes through are those of a checked-in table.

A table has one row an optimizer step: the stage and phase that the step left the run in, and the
parameters, learning-rate multiplier and alpha that it was made with; where there is a curriculum,
the share of the samples, the image's side (- for the full one) and the batch as well. After a
change that is meant to move them, write the tables again and read the difference:

    PROGTRAIN_REWRITE=1 pytest tests/test_trace.py && git diff tests/traces
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from run_kit import CONF, TINY, Finished, compared, config, parts, train

TRACES = Path(__file__).parent / "traces"
CNN = ("model=cnn", "model.width=4")
EXAMPLES = {
    "baseline": ("growth=none", "scheduler=cosine"),
    "ramp": (
        *CNN,
        "growth=schedule",
        "growth.consolidation=2steps",
        "warmup=cosine_ramp",
        "warmup.length=4steps",
    ),
    "isolation": (
        "growth=schedule",
        "growth.stages.deeper.at=5steps",
        "growth.stages.wider.at=1e3flops",  # long over when the first is integrated
        "growth.consolidation=1epochs",
        "warmup=frozen_host",
        "warmup.isolation=20%",
        "at_growth=rewarm",
        "at_growth.length=3steps",
    ),
    "plateau": (
        "growth=plateau",
        "growth.consolidation=3steps",
        "growth.trigger.patience=2",
        "growth.trigger.min_delta=1.0",
        "train.evaluate_every=2steps",
        "warmup=lr",
        "warmup.length=3steps",
        "scheduler=reduce_on_plateau",
        "scheduler.patience=1",
        "scheduler.factor=0.5",
    ),
    "sequential": (
        "growth=sequential",
        "growth.stages.deeper.when='flat(loss, 1) or epoch >= 0.8'",
        "growth.stages.deeper.consolidation=4steps",
        "growth.stages.wider.when='since_growth > 30% and params < 200'",
        "growth.consolidation=2steps",
        "train.evaluate_every=2steps",
        "warmup=lr",
        "warmup.length=2steps",
    ),
    "overlapping": (  # both ramps at once, and each rests for a time of its own
        *CNN,
        "growth=overlapping",
        "growth.stages.deeper.when='step >= 3'",
        "growth.stages.wider.when='since_growth >= 0.5'",
        "growth.stages.wider.consolidation=2steps",
        "growth.consolidation=6steps",
        "warmup=linear_ramp",
        "warmup.length=8steps",
    ),
    "proactive": (
        "growth=proactive",
        "growth.trigger.window=3",
        "growth.trigger.horizon=25%",
        "growth.consolidation=2steps",
        "train.evaluate_every=2steps",
        "warmup=cosine_ramp",
        "warmup.length=2steps",
    ),
    "trial": (  # the first option is not always the best, and the last turn grows nothing
        "growth=budget",
        "growth/choice=trial",
        "growth.choice.steps=3",
        "growth.choice.include_none=true",
        "growth.trigger.interval=4steps",
        "growth.max_params=600",
    ),
    "settling": (
        "growth=schedule",
        "growth.stages.deeper.at=3steps",
        "growth.consolidation=2steps",
        "warmup=lr",
        "warmup.length=2steps",
        "settle=lower_rate",
        "settle.length=3steps",
        "scheduler=cosine",
    ),
    "rollback": (  # a growth ends after five steps, without what is asked of it, and comes again
        "growth=schedule",
        "growth.stages.deeper.at=6steps",
        "growth.stages.wider.at=50%",
        "growth.keep_if='gain > 2'",
        "growth.embargo=3steps",
        "growth.consolidation=2steps",
        "warmup=cosine_ramp",
        "warmup.length=3steps",
    ),
    "budget": (
        *CNN,
        "growth=budget",
        "growth.trigger.interval=4steps",
        "growth.max_params=6000",
        "warmup=linear_ramp",
        "warmup.length=16samples",
        "at_growth=restart",
        "train.batch_size=4",
        "train.accumulate=2",
    ),
    "combined": (  # all three are over after 4 steps; then two observations, and the network grows
        *CNN,
        "growth=combined",
        "curriculum=combination",
        "curriculum.curricula.difficulty.length=4steps",
        "curriculum.curricula.difficulty.score.steps=3",
        "curriculum.curricula.image_size.length=3steps",
        "curriculum.curricula.image_size.multiple=1",
        "curriculum.curricula.batch_size.every=1steps",
        "curriculum.curricula.batch_size.maximum=16",
        "growth.consolidation=2steps",
        "growth.trigger.patience=1",
        "growth.trigger.min_delta=1.0",
        "train.evaluate_every=1steps",
        "train.batch_size=4",
    ),
}


def table(finished: Finished) -> str:
    """The rows of a run as text."""
    head = f"{'step':>4}  {'stage':<8}  {'phase':<11}  {'params':>6}  {'rate':>8}  {'alpha':>8}"
    if finished.run.curriculum.sets:
        head += f"  {'share':>8}  {'side':>4}  {'batch':>5}"
    rows = [_row(row) for row in finished.spy.rows]
    if any(len(row["living"]) > 1 for row in finished.spy.rows):  # the alphas of all of them
        head += "  living"
        rows = [f"{r}  {_living(row)}" for r, row in zip(rows, finished.spy.rows, strict=True)]
    return "\n".join(line.rstrip() for line in [head, *rows, *_ends(finished)]) + "\n"


def _row(row: dict[str, Any]) -> str:
    share, side, _, batch = row["view"]
    seen = f"  {share:8.6f}  {side or '-':>4}  {batch:>5}" if row["curriculum"] else ""
    return (
        f"{row['step']:>4}  {row['stage']:<8}  {row['phase'].value:<11}  {row['params']:>6}"
        f"  {row['rate']:8.6f}  {row['alpha']:8.6f}{seen}"
    )


def _living(row: dict[str, Any]) -> str:
    return " · ".join(f"{stage} {alpha:.2f}" for stage, alpha in row["living"].items())


def _ends(finished: Finished) -> list[str]:
    run = finished.run
    assert run.stopped is not None
    return [f"stopped: {run.stopped.name}, grown out: {run.grown_out and run.grown_out.name}"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_trace_of_phases_equals_the_table(name: str, tmp_path: Path) -> None:
    made = parts(*EXAMPLES[name])
    got = table(train(made, tmp_path, store=False))
    assert got == compared(TRACES / f"{name}.txt", got)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_kit_composes_what_hydra_composes(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", overrides=[*TINY, *EXAMPLES[name]])
    plain = [OmegaConf.to_container(c, resolve=True) for c in (composed, config(*EXAMPLES[name]))]
    assert plain[0] == plain[1]


def test_every_table_has_its_example() -> None:
    assert {path.stem for path in TRACES.glob("*.txt")} == set(EXAMPLES)
