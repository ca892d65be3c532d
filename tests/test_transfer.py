"""What networks of before hand on: distillation against its formula, teachers that stay what they
were, cost that is charged, resumes in the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import (
    CLASSES,
    a_machine,
    a_model,
    a_probe,
    grow_now,
    make,
    one_thread,  # noqa: F401
    train,
)
from run_kit import Spy, branch, differences, parts, resume
from run_kit import train as run_job
from torch import Tensor, nn

from progtrain.account import TEACHERS, TRAINING
from progtrain.errors import ConfigError, GrowthError, SettingError
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.add_outputs import AddOutputs
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.machine import Machine
from progtrain.run import Run, Teacher
from progtrain.settings import Checkpoints
from progtrain.transfer.distill import Distill
from progtrain.transfer.progressive import Progressive
from progtrain.transfer.teachers import answer
from progtrain.transfer.teaching import Teaching, divergence

SGD = make("optimizer", "sgd")
GROWN = ("growth=schedule", "growth.stages.deeper.at=4steps", "growth.stages.wider.at=10steps")
CNN = ("model=cnn", "model.width=4", "model.dropout=0.3")
WEIGHTS = ("model/", "average/")


def teaching(**changes: object) -> Teaching:
    values: dict[str, object] = {"alpha": 0.5, "temperature": 2.0, "weights": "equal"}
    values |= {"most": None, "length": None, "device": "same", "precision": "same"}
    return Teaching(**(values | changes))  # type: ignore[arg-type]


def a_taught_machine(model: nn.Module, transfer: object, **more: object) -> Machine:
    machine = a_machine(model, SGD, **more)  # type: ignore[arg-type]
    return Machine(machine.run, replace(machine.setup, transfer=transfer))  # type: ignore[arg-type]


def reference(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL in float64 by its definition, target by target: Σ p (log p − log q)."""
    total = torch.zeros((), dtype=torch.float64)
    for s_K, t_K in zip(student.double(), teacher.double(), strict=True):
        log_q_K = s_K / temperature - torch.logsumexp(s_K / temperature, 0)
        log_p_K = t_K / temperature - torch.logsumexp(t_K / temperature, 0)
        total = total + (log_p_K.exp() * (log_p_K - log_q_K)).sum()
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 100.0])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divergence_is_that_of_its_definition(
    size: float, temperature: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    student = (torch.randn(7, 5, dtype=torch.float64) * size).to(dtype).requires_grad_(True)
    teacher = (torch.randn(7, 5, dtype=torch.float64) * size).to(dtype)
    got = divergence(student, teacher, temperature)
    (grad,) = torch.autograd.grad(got, student)
    exact = student.detach().double().requires_grad_(True)
    wanted = reference(exact, teacher, temperature)
    (exact_grad,) = torch.autograd.grad(wanted, exact)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    assert bool(torch.isfinite(got)) and bool(torch.isfinite(grad).all())
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad.double(), exact_grad, rtol=1e-3, atol=tolerance)


def test_the_loss_mixes_teachers_labels_and_temperature_by_its_formula() -> None:
    torch.manual_seed(0)
    student, *teachers = torch.randn(3, 6, 4, dtype=torch.float64)
    labels = torch.tensor(0.7, dtype=torch.float64)
    each = [reference(student, teacher, 3.0) for teacher in teachers]
    for weights, shares in (
        ("equal", (0.5, 0.5)),
        ("recent", (1 / 3, 2 / 3)),
        ([1, 4], (0.8, 0.2)),
    ):
        made = teaching(alpha=0.3, temperature=3.0, weights=weights)
        loss, distilled = made.loss(labels, student, teachers)
        wanted = 9.0 * sum(share * kl for share, kl in zip(shares, each, strict=True))
        torch.testing.assert_close(distilled, wanted)
        torch.testing.assert_close(loss, 0.3 * wanted + 0.7 * labels)
        assert not distilled.requires_grad


def test_targets_at_every_position_count_alike() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    flat = divergence(student.flatten(0, 1), teacher.flatten(0, 1), 2.0)
    torch.testing.assert_close(divergence(student, teacher, 2.0), flat)


def test_classes_that_have_joined_are_left_out() -> None:
    torch.manual_seed(0)
    student = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 3, dtype=torch.float64)
    loss = divergence(student, teacher, 2.0)
    torch.testing.assert_close(loss, reference(student[:, :3], teacher, 2.0))
    (grad,) = torch.autograd.grad(loss, student)
    assert not grad[:, 3:].any() and grad[:, :3].any()


def test_logits_in_half_precision_are_widened_first() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 4).bfloat16()
    assert divergence(student, teacher, 2.0).dtype is torch.float32


@pytest.mark.parametrize(
    ("weights", "teachers", "shares"),
    [
        ("equal", 4, [0.25] * 4),
        ("recent", 3, [1 / 7, 2 / 7, 4 / 7]),
        ([3, 1], 1, [1.0]),
        ([3, 1], 2, [0.25, 0.75]),
    ],
)
def test_weights_sum_to_one_over_the_teachers_there_are(
    weights: str | Sequence[float], teachers: int, shares: list[float]
) -> None:
    assert teaching(weights=weights).shares(teachers) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("alpha", 1.5),
        ("temperature", 0.0),
        ("length", "0%"),
        ("device", "gpu"),
        ("precision", "fp8"),
        ("weights", "old"),
        ("weights", [0, 1]),
        ("weights", []),
        ("most", 0),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        Progressive(**{setting: value})  # type: ignore[arg-type]
    assert caught.value.setting == setting


def held(teacher: Teacher) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}


def test_no_bit_of_a_teacher_changes_and_no_gradient_reaches_it(tmp_path: Path) -> None:
    """With batch norm, whose statistics move in training, and dropout, which would draw."""
    seen: dict[int, tuple[Teacher, dict[str, Tensor]]] = {}

    def act(call: str, run: Run) -> None:
        for teacher in run.teachers:
            seen.setdefault(teacher.growth, (teacher, held(teacher)))

    made = parts(*GROWN, *CNN, "transfer=progressive")
    run = run_job(made, tmp_path, Spy(act), store=False).run
    assert [teacher.growth for teacher in run.teachers] == [0, 1]
    for teacher, then in seen.values():
        now = teacher.model.state_dict()
        assert any(name.endswith("running_mean") for name in now)
        assert all(torch.equal(now[name], tensor) for name, tensor in then.items())
        assert all(p.grad is None and not p.requires_grad for p in teacher.model.parameters())
        assert not any(module.training for module in teacher.model.modules())
        x = run.probe.x
        assert torch.equal(answer(teacher, x), answer(teacher, x))


def test_a_teacher_says_what_the_network_said_at_the_growth_at_its_alphas() -> None:
    """The second growth comes in the middle of the first one's ramp."""
    ramp = make("warmup", "linear_ramp", length="6steps")
    machine = a_taught_machine(a_model("mlp_batch"), Progressive(), warmup=ramp)
    train(machine, 2)
    grow_now(machine, DeepenRandom())
    train(machine, 3)
    assert machine.run.events[0].alpha == 0.5
    x = a_probe().x
    before = evaluate(machine.run.model, x)
    grow_now(machine, WidenRandom())
    taught = answer(machine.run.teachers[-1], x)
    torch.testing.assert_close(taught, before, rtol=0, atol=0)
    plain = replace(machine.run.teachers[-1], model=a_model("mlp_batch"))
    assert not torch.allclose(answer(plain, x), before)
    train(machine, 4)
    assert torch.equal(answer(machine.run.teachers[-1], x), taught)


def test_a_teacher_pulls_the_student_towards_itself() -> None:
    drift: list[float] = []
    for transfer in (Distill(alpha=1.0, temperature=1.0), Distill(alpha=0.0)):
        machine = a_taught_machine(a_model("mlp_none"), transfer)
        train(machine, 5)
        grow_now(machine, WidenRandom())
        x = a_probe().x
        train(machine, 20)
        teacher = answer(machine.run.teachers[-1], x)
        drift.append(float(divergence(evaluate(machine.run.model, x), teacher, 1.0)))
    assert drift[0] < 0.2 * drift[1]


def test_outputs_that_join_have_no_teacher() -> None:
    machine = a_taught_machine(a_model("mlp_batch"), Distill())
    train(machine, 2)
    grow_now(machine, AddOutputs(add=2))
    train(machine, 3)
    assert answer(machine.run.teachers[-1], a_probe().x).shape[-1] == CLASSES


@pytest.mark.parametrize("transfer", ["distill", "progressive"])
def test_without_alpha_the_weights_are_those_of_inheriting(transfer: str, tmp_path: Path) -> None:
    chosen = (*GROWN, *CNN, "train.ema=0.9")
    plain = run_job(parts(*chosen), tmp_path / "a", store=False)
    taught = run_job(
        parts(*chosen, f"transfer={transfer}", "transfer.alpha=0.0", "transfer.length=null"),
        tmp_path / "b",
        store=False,
    )
    assert taught.run.teachers
    names = [name for name in plain.spy.digest if name.startswith((*WEIGHTS, "optimizer/"))]
    assert all(plain.spy.digest[name] == taught.spy.digest[name] for name in names)
    assert plain.spy.losses == taught.spy.losses
    assert taught.run.clock.now.flops > plain.run.clock.now.flops


def test_the_loss_that_is_logged_is_that_on_the_labels_and_the_rest_beside_it(
    tmp_path: Path,
) -> None:
    made = parts(*GROWN, "transfer=distill", "transfer.alpha=1.0", "transfer.length=3steps")
    run = run_job(made, tmp_path, store=False).run
    told = [("train/distillation" in seen.metrics, seen.moment.step) for seen in run.history]
    # growths at 4 and 10, three steps each: the last step of an observation was taught at 5 only
    assert told == [(True, 5), (False, 10), (False, 15), (False, 20), (False, 24)]
    assert run.history[0].metrics["train/loss"] > 0.5 > run.history[0].metrics["train/distillation"]


def test_a_teacher_is_charged_exactly(tmp_path: Path) -> None:
    """Matrix products of the MLP: two FLOPs a weight and sample, and for each teacher forward."""
    rows: list[tuple[int, int]] = []

    def act(call: str, run: Run) -> None:
        if call == "stepped":
            spent = run.clock.account.flops
            rows.append((spent.get(TRAINING, 0), spent.get(TEACHERS, 0)))

    made = parts(*GROWN, "transfer=progressive", "transfer.length=5steps")
    run = run_job(made, tmp_path, Spy(act), store=False).run
    assert not run.teachers
    small = run.events[0].flops_before
    sizes = [small] * 4 + [run.events[0].flops_after] * 6 + [run.events[1].flops_after] * 14
    assert [own for own, _ in rows] == [sum(sizes[: i + 1]) * 8 for i in range(24)]
    taught = [teachers for _, teachers in rows]
    steps = [b - a for a, b in zip([0, *taught], taught, strict=False)]
    first, second = [forward(run, growth) for growth in (0, 1)]
    wanted = [0.0] * 4 + [8 * first] * 5 + [0.0] + [8 * second] * 5 + [0.0] * 9
    assert steps == wanted


def forward(run: Run, growth: int) -> float:
    """Forward FLOPs of a sample of the MLP before a growth: two a weight of its matrices."""
    model = run.rebuilt(event.edit for event in run.events[:growth])
    return 2.0 * sum(p.numel() for p in model.parameters() if p.ndim == 2)


def test_teachers_go_when_their_time_is_over_or_newer_ones_are_enough(tmp_path: Path) -> None:
    def alive(*overrides: str) -> list[list[int]]:
        rows: list[list[int]] = []

        def act(call: str, run: Run) -> None:
            if call == "stepped":
                rows.append([teacher.growth for teacher in run.teachers])

        made = parts(*GROWN, *overrides)
        run_job(made, tmp_path / str(len(overrides)) / overrides[-1], Spy(act), store=False)
        return rows

    stack = alive("transfer=progressive")
    assert stack == [[]] * 4 + [[0]] * 6 + [[0, 1]] * 14
    one = alive("transfer=distill", "transfer.length=null")
    assert one == [[]] * 4 + [[0]] * 6 + [[1]] * 14
    # what is shown is after the step: the fifth step of a teacher is its last
    short = alive("transfer=progressive", "transfer.length=5steps")
    assert short == [[]] * 4 + [[0]] * 4 + [[]] * 2 + [[1]] * 4 + [[]] * 10
    newest = alive("transfer=progressive", "transfer.most=1", "transfer.device=cpu")
    assert newest == one
    assert alive("transfer=progressive", "transfer.weights=[1]") == one


def test_the_teacher_of_a_growth_that_is_undone_goes_too(tmp_path: Path) -> None:
    undoing = ("growth.consolidation=2steps", "growth.keep_if='gain > 1'")
    run = run_job(parts(*GROWN, "transfer=progressive", *undoing), tmp_path, store=False).run
    assert not run.grown and not run.teachers and run.events


@pytest.mark.parametrize("at", [6, 8, 12, 22])
@pytest.mark.parametrize(
    "transfer",
    [
        ("transfer=progressive", "transfer.precision=bf16"),
        ("transfer=progressive", "transfer.weights=recent", "transfer.length=7steps"),
        ("transfer=distill", "transfer.length=4steps"),
    ],
    ids=["stack", "released", "distill"],
)
def test_a_resume_with_teachers_or_after_them_ends_in_the_same_bits(
    transfer: tuple[str, ...], at: int, tmp_path: Path
) -> None:
    ramp = ("warmup=cosine_ramp", "warmup.length=8steps", "growth.consolidation=0steps")
    fast = ("growth.stages.wider.at=12steps",)
    made = parts(*GROWN, *CNN, *ramp, *fast, *transfer)
    whole = run_job(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")
    again = resume(made, branch(whole.directory, at, tmp_path / "again"))
    assert not differences(whole, again)


def test_a_resume_without_a_teacher_in_its_settings_lets_them_go(tmp_path: Path) -> None:
    made = parts(*GROWN, "transfer=progressive")
    whole = run_job(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / "whole")
    plain = replace(made, transfer=parts(*GROWN).transfer)
    again = resume(plain, branch(whole.directory, 6, tmp_path / "again"))
    assert not again.run.teachers


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_teacher_in_half_precision_takes_half_the_memory_and_says_nearly_the_same(
    precision: str, tmp_path: Path
) -> None:
    spies = [Spy(), Spy()]
    runs = [
        run_job(
            parts(*GROWN, "transfer=distill", "transfer.length=null", f"transfer.precision={each}"),
            tmp_path / each,
            spy,
            store=False,
        ).run
        for each, spy in zip(("same", precision), spies, strict=True)
    ]
    whole, half = (run.teachers[0] for run in runs)
    dtypes = {p.dtype for p in half.model.parameters()}
    assert dtypes == {torch.bfloat16 if precision == "bf16" else torch.float16}
    x = runs[0].probe.x
    assert answer(half, x).dtype is torch.float32
    whole.model.load_state_dict({n: t.float() for n, t in half.model.state_dict().items()})
    torch.testing.assert_close(answer(half, x), answer(whole, x), rtol=0.05, atol=0.05)
    lines = [next(note for note in spy.notes if note.startswith("teacher")) for spy in spies]
    params = sum(p.numel() for p in spies[0].run.rebuilt([]).parameters())  # type: ignore[union-attr]
    assert lines[0].startswith(f"teacher deeper: {params:,} parameters, 0.00 MiB on cpu in float32")
    assert f"on cpu in {precision}" in lines[1]
    sizes = [spy.plan[1].teachers for spy in spies]
    # weights and statistics; the count of batches stays a whole number of 8 bytes
    counts = [t for t in spies[0].run.rebuilt([]).buffers() if not t.is_floating_point()]  # type: ignore[union-attr]
    assert sizes[0] - 8 * len(counts) == 2 * (sizes[1] - 8 * len(counts))
    assert spies[0].plan[0].teachers == 0
    assert spies[0].plan[1].memory == 16 * spies[0].plan[1].params + sizes[0]


PLAIN = ("growth=schedule", "warmup=none")


@pytest.mark.parametrize("widen", ["random", "firefly", "zero", "duplicate"])
def test_preserving_keeps_the_function_whatever_operator_and_warmup_promise(
    widen: str, tmp_path: Path
) -> None:
    chosen = (*PLAIN, f"widen={widen}")
    kept = run_job(parts(*chosen, "transfer=preserve"), tmp_path / "a", store=False).run
    assert all(event.promised and event.preservation_error < 1e-5 for event in kept.events)
    plain = run_job(parts(*chosen), tmp_path / "b", store=False).run
    moved = max(event.preservation_error for event in plain.events)
    assert moved > 1e-2 or widen in ("zero", "duplicate")


def test_a_growth_that_does_not_keep_what_it_must_is_undone(tmp_path: Path) -> None:
    """Held to the proof: a tolerance that no rounding stays within refuses it."""
    made = parts(*PLAIN, "model=cnn", "model.width=4", "transfer=preserve", "proof.tolerance=0.0")
    with pytest.raises(GrowthError, match="was to preserve the function"):
        run_job(made, tmp_path, store=False)


VIT = ("model=vit", "model.width=16", "model.heads=2", "model.depth=2")
HEADED = "growth.stages.wider.operator=${head}"


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("widen=sparkling",), "WidenSparkling changes weights of the host and promises nothing"),
        (("deepen=interleave_half", "model=resnet", "model.width=4"), "DeepenInterleaveHalf chang"),
        (("head=second", "head.fresh=true", HEADED), "a fresh head answers at once"),
        ((*VIT, "deepen=identity", "widen=duplicate", "widen.factor=1.5"), "widen.factor=2"),
        (("widen=duplicate", "warmup=zero_init"), "shares weights of the old units"),
    ],
)
def test_what_cannot_keep_the_function_is_refused_at_the_start(
    overrides: tuple[str, ...], why: str, tmp_path: Path
) -> None:
    spy = Spy()
    with pytest.raises(ConfigError, match=why):
        run_job(parts(*PLAIN, *overrides, "transfer=preserve"), tmp_path, spy, store=False)
    assert not spy.rows


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_on_a_gpu_a_teacher_may_stay_on_the_cpu(tmp_path: Path) -> None:
    gpu = ("hardware=gpu", "hardware.deterministic=true", "hardware.precision=bf16")
    for device, kind in (("cpu", "cpu"), ("same", "cuda")):
        made = parts(*GROWN, *gpu, "transfer=progressive", f"transfer.device={device}")
        whole = run_job(replace(made, checkpoint=Checkpoints("1steps", 1000)), tmp_path / device)
        teacher = whole.run.teachers[0]
        assert {p.device.type for p in teacher.model.parameters()} == {kind}
        again = resume(made, branch(whole.directory, 12, tmp_path / f"{device}_again"))
        assert not differences(whole, again)
