"""Learning-rate shapes against torch's own classes, at growths, and as a user configures them."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import random
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim import SGD, lr_scheduler

from progtrain.at_growth.continue_ import Continue
from progtrain.at_growth.restart import Restart
from progtrain.at_growth.rewarm import Rewarm
from progtrain.clock import Clock, Duration, Moment, Unit
from progtrain.contracts import Shape
from progtrain.errors import SettingError
from progtrain.schedulers.constant import Constant
from progtrain.schedulers.cosine import Cosine
from progtrain.schedulers.cyclic import Cyclic
from progtrain.schedulers.exponential import Exponential
from progtrain.schedulers.function import Function, inverse_square_root
from progtrain.schedulers.multistep import Multistep
from progtrain.schedulers.one_cycle import OneCycle
from progtrain.schedulers.polynomial import Polynomial
from progtrain.schedulers.reduce_on_plateau import ReduceOnPlateau
from progtrain.schedulers.shape import When
from progtrain.schedulers.step import Step
from progtrain.schedulers.warm_restarts import WarmRestarts
from progtrain.schedulers.wsd import Wsd

CONF = Path(__file__).parent.parent / "conf"
STEPS, EPOCH_STEPS, BATCH = 240, 10, 8
TOTALS = ("240steps", "24epochs", "1920samples", "24e3flops")
BASES = (0.3, 0.007)

Factory = Callable[[SGD], Any]


def moment(step: int) -> Moment:
    return Moment(step, step * BATCH, step * 100.0, step * 0.5)


def at(step: int, total: str = "240steps", **more: Any) -> When:
    clock = Clock(Duration.parse(total, "total"), EPOCH_STEPS * BATCH, moment(step))
    return When(clock, clock.now, after=clock.after_step(BATCH, 100.0), **more)


def optimizer_of(bases: tuple[float, ...]) -> SGD:
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": b} for b in bases], lr=1.0)


def rates_of_torch(make: Factory, bases: tuple[float, ...], every: int) -> list[list[float]]:
    """The rates that each optimizer step uses, as torch's scheduler sets them."""
    optimizer = optimizer_of(bases)
    scheduler, rates = make(optimizer), []
    for step in range(STEPS):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return rates


def same(got: float, wanted: float, base: float) -> bool:
    return math.isclose(got, wanted, rel_tol=1e-12, abs_tol=1e-12 * base)


S = lr_scheduler
# name: ours, torch's, steps between two steps of torch's, base rates
PAIRS: dict[str, tuple[Shape, Factory, int, tuple[float, ...]]] = {
    "constant": (Constant(), lambda o: S.LambdaLR(o, lambda _: 1.0), 1, BASES),
    "constant share": (
        Constant(0.25, "7epochs"), lambda o: S.ConstantLR(o, 0.25, 7), EPOCH_STEPS, BASES,
    ),
    "step": (Step("7epochs", 0.3), lambda o: S.StepLR(o, 7, 0.3), EPOCH_STEPS, BASES),
    "step in shares": (Step("30%", 0.3), lambda o: S.StepLR(o, 72, 0.3), 1, BASES),
    "multistep": (
        Multistep(("3epochs", "11epochs", "11epochs"), 0.5),
        lambda o: S.MultiStepLR(o, [3, 11, 11], 0.5), EPOCH_STEPS, BASES,
    ),
    "exponential": (Exponential(0.9), lambda o: S.ExponentialLR(o, 0.9), EPOCH_STEPS, BASES),
    "cosine": (Cosine(), lambda o: S.CosineAnnealingLR(o, STEPS), 1, BASES),
    "cosine to a floor": (
        Cosine(final=0.1), lambda o: S.CosineAnnealingLR(o, STEPS, eta_min=0.03), 1, (0.3,),
    ),
    "cosine beyond its length": (
        Cosine("100steps", 0.1), lambda o: S.CosineAnnealingLR(o, 100, eta_min=0.03), 1, (0.3,),
    ),
    "warm restarts": (
        WarmRestarts("25%"), lambda o: S.CosineAnnealingWarmRestarts(o, 60), 1, BASES,
    ),
    "longer warm restarts": (
        WarmRestarts("14steps", 2, 0.1),
        lambda o: S.CosineAnnealingWarmRestarts(o, 14, 2, eta_min=0.03), 1, (0.3,),
    ),
    "thrice as long warm restarts": (
        WarmRestarts("7.5%", 3), lambda o: S.CosineAnnealingWarmRestarts(o, 18, 3), 1, BASES,
    ),
    "triangular": (
        Cyclic("20%", 0.25, 3.0),
        lambda o: S.CyclicLR(
            o, list(BASES), [3 * b for b in BASES], 12, 36, cycle_momentum=False
        ), 1, BASES,
    ),
    "triangular2": (
        Cyclic("40steps", 0.5, 4.0, cycle_gamma=0.5),
        lambda o: S.CyclicLR(
            o, list(BASES), [4 * b for b in BASES], 20, mode="triangular2", cycle_momentum=False
        ), 1, BASES,
    ),
    "exp_range": (
        Cyclic("40steps", 0.5, 4.0, step_gamma=0.99),
        lambda o: S.CyclicLR(
            o, list(BASES), [4 * b for b in BASES], 20, mode="exp_range", gamma=0.99,
            cycle_momentum=False,
        ), 1, BASES,
    ),
    "one cycle": (
        OneCycle(), lambda o: S.OneCycleLR(o, list(BASES), STEPS, cycle_momentum=False), 1, BASES,
    ),
    "one cycle with its own factors": (
        OneCycle(0.42, 7.0, 50.0),
        lambda o: S.OneCycleLR(
            o, list(BASES), STEPS, pct_start=0.42, div_factor=7.0, final_div_factor=50.0,
            cycle_momentum=False,
        ), 1, BASES,
    ),
    "polynomial": (Polynomial(power=2.0), lambda o: S.PolynomialLR(o, STEPS, 2.0), 1, BASES),
    "polynomial to the middle": (
        Polynomial("50%", 0.7), lambda o: S.PolynomialLR(o, 120, 0.7), 1, BASES,
    ),
    "wsd": (
        Wsd("5%", "20%", 0.1),  # 12 steps up, 48 steps down
        lambda o: S.SequentialLR(
            o,
            [
                S.LinearLR(o, 1 / 12, 1.0, 11),
                S.ConstantLR(o, 1.0, 1),
                S.LinearLR(o, 1.0, 0.1, 48),
            ],
            [12, 192],
        ), 1, BASES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("name", PAIRS)
def test_a_shape_equals_torch_at_every_step_of_a_run(name: str, total: str) -> None:
    ours, make, every, bases = PAIRS[name]
    for step, wanted in enumerate(rates_of_torch(make, bases, every)):
        multiplier = ours.multiplier(at(step, total))
        for base, rate in zip(bases, wanted, strict=True):
            assert same(base * multiplier, rate, base), (step, base * multiplier, rate)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize(
    ("patience", "threshold", "cooldown", "least"),
    [(3, 1e-4, 0, 0.0), (2, 0.02, 4, 0.0), (0, 0.0, 1, 0.004)],
)
def test_reduce_on_plateau_equals_torch_on_a_noisy_metric(
    mode: str, patience: int, threshold: float, cooldown: int, least: float
) -> None:
    draw = random.Random(patience)
    values = [2 - math.exp(-i / 9) * (1 if mode == "max" else -1) for i in range(80)]
    values = [value + draw.gauss(0, 0.05) for value in values]
    ours = ReduceOnPlateau(mode, 0.5, patience, threshold, cooldown, least)
    optimizer = optimizer_of(BASES)
    theirs = S.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience, threshold, "rel", cooldown, [least * b for b in BASES], 0.0
    )
    seen: list[tuple[Moment, float]] = []
    for step, value in enumerate(values):
        multiplier = ours.multiplier(at(step, metrics=tuple(seen)))
        for base, group in zip(BASES, optimizer.param_groups, strict=True):
            assert same(base * multiplier, group["lr"], base), step
        optimizer.step()
        theirs.step(value)
        seen.append((moment(step + 1), value))
    assert ours.multiplier(at(80, metrics=tuple(seen))) < 0.3, "the sequence must reduce twice"


def test_wsd_trains_no_step_at_rate_zero() -> None:
    shape = Wsd("4steps", "4steps")
    got = [shape.multiplier(at(s, "12steps")) for s in range(12)]
    assert got == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_wsd_without_warmup_and_decay_is_constant() -> None:
    assert {Wsd("0%", "0%").multiplier(at(s)) for s in range(STEPS + 1)} == {1.0}


def test_wsd_whose_warmup_meets_its_decay_stays_continuous() -> None:
    shape = Wsd("200steps", "30%", 0.2)
    rates = [shape.multiplier(at(s)) for s in range(STEPS)]
    assert max(abs(a - b) for a, b in pairwise(rates)) < 0.02


def test_wsd_says_at_the_first_step_that_it_cannot_place_its_decay() -> None:
    with pytest.raises(SettingError, match="decay must be a share of the run, or in steps"):
        Wsd(decay="3epochs").multiplier(at(0))


def test_a_function_of_the_user_is_told_the_share_that_is_over() -> None:
    shape = Function(lambda fraction: 1 - fraction)
    assert [shape.multiplier(at(s)) for s in (0, 60, 240)] == [1.0, 0.75, 0.0]
    knee = Function(functools.partial(inverse_square_root, knee=0.1))
    assert knee.multiplier(at(24)) == pytest.approx(math.sqrt(0.5))


def test_a_function_that_returns_no_rate_is_named() -> None:
    with pytest.raises(SettingError, match="function must be a function that returns numbers"):
        Function(lambda fraction: -1.0).multiplier(at(0))


@pytest.mark.parametrize("length", ["24steps", "10%", "240samples", "2400flops", "12seconds"])
def test_every_unit_measures_the_same_rise(length: str) -> None:
    steps = 30 if length.endswith("samples") else 24
    for step in range(1, STEPS):
        got = Wsd(length, "0%").multiplier(at(step))
        assert got == pytest.approx(min(1.0, (step + 1) / steps)), step


def test_rounding_delays_no_fall_and_no_restart_by_a_step() -> None:
    for steps in range(10, 400, 10):
        for tenth in range(10):
            now = at(tenth * steps // 10, f"{steps}steps")
            assert Step("10%", 0.5).multiplier(now) == 0.5**tenth, (steps, tenth)
            assert WarmRestarts("10%").multiplier(now) == pytest.approx(1.0), (steps, tenth)


# What happens at a growth.

SHAPES: dict[str, Shape] = {name: ours for name, (ours, _, _, _) in PAIRS.items()}
GROWTHS = (moment(80), moment(140))


def grown(step: int, **more: Any) -> When:
    """The time of a run that grew after 80 and 140 steps."""
    return at(step, growths=tuple(g for g in GROWTHS if g.step <= step), **more)


@pytest.mark.parametrize("name", SHAPES)
def test_continue_takes_no_notice_of_growths(name: str) -> None:
    shape = SHAPES[name]
    for step in range(STEPS):
        assert Continue().multiplier(shape, grown(step)) == shape.multiplier(at(step))


@pytest.mark.parametrize("name", SHAPES)
def test_restart_is_a_run_of_the_length_that_remains(name: str) -> None:
    shape = SHAPES[name]
    for step in range(STEPS):
        begin = max([0, *(g.step for g in GROWTHS if g.step <= step)])
        fresh = shape.multiplier(at(step - begin, f"{STEPS - begin}steps"))
        got = Restart().multiplier(shape, grown(step))
        assert got == pytest.approx(fresh, rel=1e-9, abs=1e-12), step


def test_restart_forgets_what_was_measured_before_the_growth() -> None:
    shape = ReduceOnPlateau(factor=0.5, patience=0)
    metrics = tuple((moment(s), 1.0) for s in (60, 70, 80, 90, 100))
    now = at(100, metrics=metrics, growths=(moment(80),))
    assert shape.multiplier(now) == 0.5**4
    assert Restart().multiplier(shape, now) == 0.5
    assert now.restarted(moment(80)).metrics == metrics[3:]


def test_restart_at_the_last_moment_gives_a_finite_rate() -> None:
    now = at(STEPS, growths=(moment(STEPS),))
    for shape in SHAPES.values():
        assert math.isfinite(Restart().multiplier(shape, now))


@pytest.mark.parametrize("name", SHAPES)
def test_rewarm_rises_straight_to_the_continuing_shape(name: str) -> None:
    shape, rule = SHAPES[name], Rewarm("10%", 0.2)
    for step in range(STEPS):
        full = shape.multiplier(at(step))
        since = [step - g.step for g in GROWTHS if g.step <= step]
        rise = min(1.0, (since[-1] + 1) / 24) if since else 1.0
        got = rule.multiplier(shape, grown(step))
        assert got == pytest.approx(full * (0.2 + 0.8 * rise), rel=1e-9, abs=1e-15), step


@pytest.mark.parametrize("length", ["2%", "5steps", "1epochs", "40samples", "500flops", "3seconds"])
@pytest.mark.parametrize("total", [*TOTALS, "120seconds"])
def test_rewarm_never_trains_a_step_at_rate_zero(length: str, total: str) -> None:
    rates = [
        Rewarm(length).multiplier(Constant(), at(s, total, growths=GROWTHS[:1]))
        for s in range(80, 95)
    ]
    assert 0 < rates[0] < 0.35
    assert rates == sorted(rates)
    assert rates[-1] == 1.0


def test_rewarm_has_no_jump_but_the_one_at_the_growth() -> None:
    rule, shape = Rewarm("10%"), Cosine()
    rates = [rule.multiplier(shape, grown(step)) for step in range(STEPS)]
    jumps = [step for step in range(1, STEPS) if abs(rates[step] - rates[step - 1]) > 1 / 20]
    assert jumps == [80, 140]


def test_rewarm_of_length_zero_is_continue() -> None:
    for step in range(STEPS):
        now = grown(step)
        assert Rewarm("0%").multiplier(Cosine(), now) == Continue().multiplier(Cosine(), now)


def test_asking_twice_and_out_of_order_changes_nothing() -> None:
    for rule in (Continue(), Restart(), Rewarm()):
        for shape in SHAPES.values():
            forward = [rule.multiplier(shape, grown(s)) for s in range(STEPS)]
            backward = [rule.multiplier(shape, grown(s)) for s in reversed(range(STEPS))]
            assert forward == backward[::-1]


# What a user writes.

WRONG: list[tuple[type, str, object]] = [
    (Constant, "factor", -1),
    (Constant, "length", "0steps"),
    (Step, "size", "30"),
    (Step, "size", "0%"),
    (Step, "gamma", "small"),
    (Step, "gamma", math.nan),
    (Multistep, "milestones", "50%"),
    (Multistep, "milestones", 3),
    (Multistep, "milestones", []),
    (Multistep, "milestones", ["50%", "soon"]),
    (Multistep, "gamma", -0.1),
    (Exponential, "gamma", math.inf),
    (Exponential, "every", "0epochs"),
    (Cosine, "length", "120%"),
    (Cosine, "final", 2),
    (WarmRestarts, "first", 10),
    (WarmRestarts, "factor", 0),
    (WarmRestarts, "factor", 1.5),
    (WarmRestarts, "final", -0.1),
    (Cyclic, "cycle", "0%"),
    (Cyclic, "rise", 0),
    (Cyclic, "rise", 1.0),
    (Cyclic, "max_factor", 0.5),
    (Cyclic, "cycle_gamma", 1.1),
    (Cyclic, "step_gamma", -1),
    (OneCycle, "pct_start", 1.5),
    (OneCycle, "div_factor", 0),
    (OneCycle, "final_div_factor", True),
    (ReduceOnPlateau, "mode", "more"),
    (ReduceOnPlateau, "factor", 1.0),
    (ReduceOnPlateau, "patience", -1),
    (ReduceOnPlateau, "patience", 2.5),
    (ReduceOnPlateau, "threshold", 1),
    (ReduceOnPlateau, "cooldown", True),
    (ReduceOnPlateau, "min_factor", 3),
    (Polynomial, "length", "half"),
    (Polynomial, "power", 0),
    (Wsd, "warmup", "-1%"),
    (Wsd, "decay", "99%"),
    (Wsd, "decay", "20"),
    (Wsd, "final", None),
    (Function, "function", "my_function"),
    (Rewarm, "length", "2"),
    (Rewarm, "from_factor", 1.2),
]


@pytest.mark.parametrize(("part", "name", "value"), WRONG)
def test_a_wrong_value_names_its_field_and_what_is_allowed(
    part: type, name: str, value: object
) -> None:
    with pytest.raises(SettingError) as caught:
        part(**{name: value})
    assert caught.value.setting == name
    assert caught.value.allowed


def test_every_field_has_a_wrong_value_in_the_table() -> None:
    tried = {(part, name) for part, name, _ in WRONG}
    parts = {part for part, _, _ in WRONG}
    assert {(part, f.name) for part in parts for f in fields(part)} == tried


FILES = sorted(CONF.glob("scheduler/*.yaml")) + sorted(CONF.glob("at_growth/*.yaml"))


def resolve(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def build(node: dict[str, Any]) -> Any:
    """What hydra makes of a node; an interpolation is left to its default."""
    keys = {k: v for k, v in node.items() if not k.startswith("_")}
    built = {k: build(v) if isinstance(v, dict) else v for k, v in keys.items()}
    built = {k: v for k, v in built.items() if not str(v).startswith("${")}
    target = resolve(node["_target_"])
    inspect.signature(target).bind_partial(**keys)
    return functools.partial(target, **built) if node.get("_partial_") else target(**built)


def test_there_is_one_yaml_for_each_shape() -> None:
    room = {p.stem for p in (CONF.parent / "progtrain/schedulers").glob("*.py")}
    assert {f.stem for f in FILES if f.parent.name == "scheduler"} == room - {"shape", "__init__"}
    assert {f.stem for f in FILES if f.parent.name == "at_growth"} == {
        "continue", "restart", "rewarm",
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}={p.stem}")
def test_a_yaml_builds_what_it_names_and_sets_every_field(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    part = build(node)
    assert {f.name for f in fields(part)} == set(node) - {"_target_"}
    default = part if path.stem == "function" else type(part)()
    written = {k: v for k, v in node.items() if k != "_target_" and not str(v).startswith("${")}
    for name, value in written.items():
        if not isinstance(value, dict):
            kept = getattr(default, name)
            assert value == (list(kept) if isinstance(kept, tuple) else kept), name


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}={p.stem}")
def test_a_yaml_opens_with_what_it_is_and_how_to_run_it(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ") and lines[0].endswith((".", ").", ":"))
    assert f"{path.parent.name}={path.stem}" in lines[1] and "progtrain " in lines[1]
    settings = [ln for ln in lines if ":" in ln and not ln.startswith("#") and "_target_" not in ln]
    assert all("  # " in ln or ln.endswith(":") for ln in settings)
    assert "defaults" not in path.read_text()


@pytest.mark.parametrize("path", sorted(CONF.glob("scheduler/*.yaml")), ids=lambda p: p.stem)
def test_a_configured_shape_is_finite_in_a_run_of_any_unit(path: Path) -> None:
    shape = build(yaml.safe_load(path.read_text()))
    for total in (*TOTALS, "120seconds"):
        for step in (0, 1, 100, STEPS - 1, STEPS, STEPS + 5):
            value = shape.multiplier(at(step, total))
            assert math.isfinite(value) and 0 <= value <= 10, (total, step)
        assert shape.multiplier(at(1, total)) > 0


def test_a_shape_cannot_be_changed_once_built() -> None:
    with pytest.raises(AttributeError):
        Cosine().final = 0.5  # type: ignore[misc]
    assert replace(Cosine(), final=0.5).final == 0.5
    assert Duration.parse(Wsd().decay, "decay").unit is Unit.FRACTION
