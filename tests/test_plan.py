"""`task=plan` shows what would grow, and stages that find nothing are passed over."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from growth_kit import a_host, a_machine, a_model, make, one_thread  # noqa: F401
from rich.console import Console

from progtrain.cli import run as progtrain
from progtrain.errors import NothingToGrowError
from progtrain.growth.declared import pass_over
from progtrain.growth.schedule import At, Schedule
from progtrain.growth.spaces import spaces
from progtrain.models.gpt import GPT
from progtrain.report.plan import how, print_things_that_grow
from progtrain.run import Stage

TINY = ["model.width=8", "data=synthetic", "hardware.threads=1", "train.duration=8steps"]


def test_a_plan_names_stages_spaces_and_stacks_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "plan"
    code = progtrain(
        ["task=plan", "model=resnet", *TINY, "growth=schedule", f"hydra.run.dir={place}"]
    )
    told = capsys.readouterr().out
    assert code == 0 and not (place / "checkpoints").exists()
    for word in ("Stages", "deeper", "wider", "stages.0.entry.conv", "stages.1.blocks", "MiB"):
        assert word in told, word
    assert "cannot: it is the model's output" in told


def test_a_task_that_does_not_exist_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert progtrain(["task=plans"]) == 2
    told = capsys.readouterr().err
    assert (
        "train, plan, test, predict, inspect, export, compare, got 'plans'. Did you mean 'plan'?"
        in told
    )
    assert progtrain(["-m", "task=plan", "seed=0,1"]) == 2
    assert "task=plan shows one job" in capsys.readouterr().err


def test_how_a_space_grows_is_told_in_words() -> None:
    seen = {s.name: s for s in spaces(*_model_and_x("mlp_layer"))}
    assert "exact by padding (layer norm) or whole factors" in how(seen["stem"])
    assert how(seen["head"]) == "cannot: it is the model's output"
    assert "exact by any operator" in how(
        {s.name: s for s in spaces(*_model_and_x("cnn"))}["stages.0.entry.conv"]
    )


def test_a_plan_is_printed_for_a_network_without_stacks() -> None:
    machine = a_machine(a_model("flat"), make("optimizer", "sgd"))
    out = io.StringIO()
    print_things_that_grow(machine.run, Console(file=out, width=100))
    assert "conv" in out.getvalue() and "Stacks" in out.getvalue()


def test_a_stage_that_finds_nothing_is_passed_over_and_the_others_grow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dense net has no stack of equal blocks; its widths grow all the same."""
    code = progtrain(
        ["model=mlp", "growth=schedule", "growth.start={width: 0.5, depth: 0}", "model.norm=none",
         *TINY, f"hydra.run.dir={tmp_path / 'run'}"]
    )  # fmt: skip
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "wider" in told.out


def test_a_network_in_which_no_stage_can_grow_is_refused() -> None:
    from progtrain.growth.plan import plan

    schedule = Schedule({"deeper": At("5steps", make("deepen", "identity"))})
    machine = a_machine(a_model("flat"), make("optimizer", "sgd"), growth=schedule)  # type: ignore[arg-type]
    with pytest.raises(NothingToGrowError, match="no run of equal blocks"):
        plan(machine.run, machine.setup)


def test_a_policy_that_asks_for_the_same_stage_for_ever_is_stopped() -> None:
    run = a_machine(a_model("flat"), make("optimizer", "sgd")).run
    stage, error = Stage("deeper", make("deepen", "identity")), NothingToGrowError("none")
    pass_over(run, stage, error)
    with pytest.raises(NothingToGrowError):
        pass_over(run, stage, error)


def _model_and_x(name: str):
    host = a_host(name)
    return host.model, host.probe.x


def test_a_decoder_says_what_its_heads_take_along() -> None:
    import torch

    torch.manual_seed(0)
    model = GPT((6,), 9, width=8, depth=1, heads=2)
    seen = {s.name: how(s) for s in spaces(model, torch.randint(9, (2, 6)))}
    assert any("exact by padding (RMS norm)" in text for text in seen.values())
    assert any(name.endswith(":heads") for name in seen)
