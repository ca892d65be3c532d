"""What `coverage.py` asks of one network: which spaces grow, and whether growing is exact."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterable

import torch
from coverage_models import CLASSES, LARGE, count, smallest
from coverage_report import Outcome, Report
from coverage_training import trains
from coverage_values import noise, randomise
from torch import Tensor, nn

from progtrain.clock import Moment
from progtrain.contracts import Operator, Strength
from progtrain.errors import GrowthError
from progtrain.growth.controls import Controls
from progtrain.growth.grow import Grown, Host, grow
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.spaces import Space, spaces
from progtrain.growth.stacks import stacks
from progtrain.run import Event, Phase, Probe
from progtrain.warmups.linear_ramp import LinearRamp


def blocks(model: nn.Module) -> list[str]:
    """Repeated modules with several weights, the innermost that do not repeat inside another."""

    def candidate(module: nn.Module) -> bool:
        plain = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return not plain and sum(p.ndim > 1 for p in module.parameters()) > 1

    named = {n: m for n, m in model.named_modules() if n and candidate(m)}
    kinds = [type(m) for m in named.values()]
    repeated = {n: m for n, m in named.items() if kinds.count(type(m)) > 1}
    stages = {type(m) for m in repeated.values() if _stage(m, set(repeated.values()))}
    found: list[str] = []
    for name, module in repeated.items():
        inside = any(name.startswith(f"{other}.") for other in found)
        if type(module) not in stages and not inside:
            found.append(name)
    return found


def _stage(module: nn.Module, repeated: set[nn.Module]) -> bool:
    inner = [type(m) for m in module.modules() if m is not module and m in repeated]
    return any(inner.count(kind) > 1 for kind in inner)


def touched(space: Space, found: Iterable[str]) -> set[str]:
    return {b for b in found for p in space.parts if p.tensor.startswith(f"{b}.")}


def sort(every: list[Space], found: list[str]) -> tuple[list[Space], list[Space]]:
    """Hidden spaces (within one block) and streams (the others); all are both without blocks.

    Factors of a width (head size) are left out, but where they are all of it that can
    grow; inside a block only where they grow alone. What makes a stream follow grows with it.
    """
    whole = [s for s in every if not s.inner]
    grown = {(part.tensor, part.dim) for s in whole if not s.fixed for part in s.parts}
    factors = [s for s in every if s.inner and not s.fixed]
    apart = [s for s in factors if not grown.issuperset((p.tensor, p.dim) for p in s.parts)]
    outer = [*whole, *apart]
    if not found:
        return outer, outer
    homes = [tuple(f"{b}." for b in found if p_in(s, b)) for s in outer]
    inside = [s for s, home in zip(outer, homes, strict=True) if home]
    streams = [s for s, home in zip(outer, homes, strict=True) if not home]
    shared = {s.name for s in streams}
    return [s for s in inside if not ((s.inner and s.follows) or shared & {*s.follows})], streams


def p_in(space: Space, block: str) -> bool:
    return all(part.tensor.startswith(f"{block}.") for part in space.parts)


def pattern(chosen: Iterable[Space]) -> str:
    return "|".join(glob.escape(space.name) for space in chosen)


def grown_by(host: Host, operator: Operator, limit: float, note: str = "") -> tuple[Outcome, Grown]:
    before = evaluate(host.model, host.probe.x)
    grown = grow(host, operator, 0)
    after = evaluate(grown.model, host.probe.x)
    error = float((after - before).abs().max() / before.abs().max())
    assert count(grown.model) > count(host.model), "nothing has grown"
    reason = grown.edit.inexact
    return Outcome(error <= limit, "; ".join(n for n in (note, reason) if n), error), grown


def check(suite: str, name: str) -> Report:
    """Grow one network every way."""
    start, report = time.perf_counter(), Report(name)
    torch.manual_seed(0)
    model, image = smallest(suite, name)
    report.image, report.params = image, count(model)
    dtype = torch.float64 if report.params <= LARGE and _doubles(model, image) else torch.float32
    report.dtype, limit = str(dtype)[6:], 1e-10 if dtype is torch.float64 else 1e-4
    model = model.to(dtype)
    randomise(model, lambda n: torch.randn(n, 3, image, image, dtype=dtype))
    probe = Probe(torch.randn(2, 3, image, image, dtype=dtype), torch.arange(2) % CLASSES)
    _sensitive(model, probe.x)
    report.noise = noise(model, probe.x)
    began = time.perf_counter()
    every = spaces(model, probe.x)
    report.trace = time.perf_counter() - began
    report.growable, report.total = sum(not s.fixed for s in every), len(every)
    report.fixed = {s.name: s.fixed for s in every if s.fixed}
    found, host = blocks(model), Host(model, probe)
    hidden, streams = sort(every, found)
    report.hidden, wider = _growth(lambda: _hidden(host, hidden, found, limit))
    report.stream, streaming = _growth(lambda: _streams(host, streams, found, limit))
    report.trains = min(wider, streaming, key=lambda outcome: (not outcome.tried, outcome.ok))
    report.depth, report.deep = _growth(lambda: _deeper(host, limit))
    report.seconds = time.perf_counter() - start
    return report


def _doubles(model: nn.Module, image: int) -> bool:
    """Whether it runs in float64: some make tensors of float32 in their forward."""
    try:
        evaluate(model.double(), torch.randn(2, 3, image, image, dtype=torch.float64))
    except RuntimeError:
        return False
    return True


def _growth(work: Callable[[], tuple[Outcome, Grown | None]]) -> tuple[Outcome, Outcome]:
    """How growing goes, and how training goes on."""
    outcome, grown = _attempt(work)
    if grown is None:
        return outcome, Outcome(tried=False)
    return outcome, _attempt(lambda: (trains(grown), None))[0]


def _attempt(work: Callable[[], tuple[Outcome, Grown | None]]) -> tuple[Outcome, Grown | None]:
    try:
        return work()
    except GrowthError as error:
        return Outcome(False, str(error)[:300]), None
    except Exception as error:
        return Outcome(False, f"{type(error).__name__}: {error}"[:300]), None


def _sensitive(model: nn.Module, x: Tensor) -> None:
    """The output depends on the image, or nothing would be proven."""
    out = evaluate(model, x)
    assert torch.isfinite(out).all(), "the output is not finite"
    assert float((out[0] - out[1]).abs().max() / out.abs().max()) > 1e-7, "the output is constant"


def _factor(host: Host) -> float:
    return 2.0 if count(host.model) < 20e6 else 1.5


def _share(chosen: list[Space], found: list[str], owners: list[str]) -> tuple[bool, str]:
    """Whether every block has one of the spaces; and how many have if not."""
    having = set[str]().union(*(touched(s, found) for s in chosen))
    missing = [b for b in owners if b not in having]
    if not missing:
        return True, ""
    kept = len(owners) - len(missing)
    return False, f"{kept} of {len(owners)} blocks; none in {missing[0]}"


def _hidden(
    host: Host, hidden: list[Space], found: list[str], limit: float
) -> tuple[Outcome, Grown | None]:
    # A block without a space of its own has nothing between its layers but what the blocks share.
    able = [s for s in hidden if not s.fixed]
    owners = [b for b in found if any(p_in(s, b) for s in hidden)]
    if not able:
        return Outcome(False, _reasons(hidden), tried=bool(hidden)), None
    whole, note = _share(able, found, owners)
    outcome, grown = _wider(host, able, _factor(host), limit, note)
    outcome.ok &= whole
    return outcome, grown


def _streams(
    host: Host, streams: list[Space], found: list[str], limit: float
) -> tuple[Outcome, Grown | None]:
    able = [s for s in streams if not s.fixed]
    if not able:
        return Outcome(False, _reasons(streams) or "there is none"), None
    whole, note = _share(able, found, found)
    outcome, grown = _wider(host, able, 1.5, limit, note)
    outcome.ok &= whole
    return outcome, grown


def _wider(
    host: Host, able: list[Space], factor: float, limit: float, note: str
) -> tuple[Outcome, Grown]:
    """By new units, or by copies where a norm over one of the spaces allows only that."""
    if not any(s.inexact for s in able):
        return grown_by(host, WidenZero(pattern(able), factor), limit, note)
    outcome, grown = grown_by(host, WidenDuplicate(pattern(able), 2.0), limit, note)
    outcome.note = "; ".join(n for n in ("duplicate", outcome.note) if n)
    return outcome, grown


def _reasons(chosen: list[Space]) -> str:
    return "; ".join(f"{s.name}: {s.fixed}" for s in chosen[:3])


def _deeper(host: Host, limit: float) -> tuple[Outcome, Grown | None]:
    """Stacks by identity blocks, or by fresh ones that a ramp blends in where none can be made."""
    if not stacks(host.model, host.probe.x):
        return Outcome(tried=False), None
    try:
        return grown_by(host, DeepenIdentity(add=1), limit)
    except GrowthError:
        return _blended(host, limit)


def _blended(host: Host, limit: float) -> tuple[Outcome, Grown]:
    """Exact at the start of a ramp; the network trains on in its middle."""
    before, grown = evaluate(host.model, host.probe.x), grow(host, DeepenRandom(add=1), 0)
    now = Moment()
    event = Event(
        *(0, "deeper", "", grown.edit, now, Phase.WARMUP, now, (), grown.edit.blocks()),
        *(0, 0, 0.0, 0.0, True, 0.0, None),
        alpha=0.0,
    )
    controls = Controls(grown.model, [event], LinearRamp())
    after = evaluate(grown.model, host.probe.x)
    controls.set({0: Strength(alpha=0.5)})
    error = float((after - before).abs().max() / before.abs().max())
    return Outcome(error <= limit, "ramp", error), grown
