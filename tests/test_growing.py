"""`progtrain.grow`: a model and torch's optimizers grow in somebody's own loop."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import progtrain
from progtrain.errors import ConfigError, GrowthError
from progtrain.optimizers.grown_adam import GrownAdam, GrownAdamW

DOCS = Path(__file__).resolve().parents[1] / "docs"
X = torch.randn(32, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = (X.sum(1) > 0).long()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)]
    return nn.Sequential(*layers).double()


def trained(model: nn.Module, optimizer: Any, steps: int = 7) -> None:
    for _ in range(steps):
        for each in optimizer if isinstance(optimizer, list) else [optimizer]:
            each.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        for each in optimizer if isinstance(optimizer, list) else [optimizer]:
            each.step()


ADAMS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "maximize": lambda p: torch.optim.Adam(p, lr=0.01, maximize=True),
    "single": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "plain_sgd": lambda p: torch.optim.SGD(p, lr=0.01),
}


@pytest.mark.parametrize("name", ADAMS)
def test_old_entries_go_on_as_if_nothing_had_grown_and_new_ones_as_under_a_new_optimizer(
    name: str,
) -> None:
    model = network()
    optimizer = ADAMS[name](model.parameters())
    trained(model, optimizer)
    grown, remade = progtrain.grow(model, optimizer, X, progtrain.WidenZero(factor=2))
    assert isinstance(remade, type(optimizer))
    fresh = [nn.Parameter(p.detach().clone()) for p in grown.parameters()]
    young = ADAMS[name](fresh)
    for turn in range(5):
        torch.manual_seed(turn)
        for old, new, alone in zip(model.parameters(), grown.parameters(), fresh, strict=True):
            new.grad = torch.randn_like(new)
            old.grad, alone.grad = new.grad[places(old)].clone(), new.grad.clone()
        for each in (optimizer, remade, young):
            each.step()
    for old, new, alone in zip(model.parameters(), grown.parameters(), fresh, strict=True):
        torch.testing.assert_close(new[places(old)], old, rtol=1e-11, atol=1e-13)
        born = torch.ones_like(new, dtype=torch.bool)
        born[places(old)] = False
        torch.testing.assert_close(new[born], alone[born], rtol=1e-11, atol=1e-13)
        if old.shape != new.shape and "sgd" not in name:
            assert not torch.allclose(new[places(old)], alone[places(old)])  # ages matter


def places(old: Tensor) -> tuple[slice, ...]:
    """Where the old entries lie: new units are appended."""
    return tuple(slice(size) for size in old.shape)


def test_what_has_not_grown_is_stepped_by_torch_to_the_last_bit() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trained(model, optimizer)
    operator = progtrain.WidenZero(spaces="0")  # the last layer's bias and the output stay
    grown, remade = progtrain.grow(model, optimizer, X, operator)
    same = [(o, n) for o, n in zip(model.parameters(), grown.parameters(), strict=True)
            if o.shape == n.shape]  # fmt: skip
    assert len(same) == 3
    for old, new in zip(model.parameters(), grown.parameters(), strict=True):
        new.grad = torch.ones_like(new)
        old.grad = torch.ones_like(old)
    optimizer.step()
    remade.step()
    assert all(torch.equal(old, new) for old, new in same)


def test_nothing_of_what_was_given_is_touched() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trained(model, optimizer)
    weights, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    _, remade = progtrain.grow(model, optimizer, X, progtrain.WidenRandom())
    after, told = model.state_dict(), optimizer.state_dict()
    assert all(torch.equal(weights[n], after[n]) for n in weights)
    assert torch.equal(state["state"][0]["step"], told["state"][0]["step"])
    held = {id(t) for s in optimizer.state.values() for t in s.values()}
    assert not held & {id(t) for s in remade.state.values() for t in s.values()}


@pytest.mark.parametrize(
    "operator",
    [
        progtrain.WidenDuplicate(factor=2),
        progtrain.WidenZero(),
        progtrain.DeepenIdentity(stacks="*"),
    ],
)
def test_an_exact_growth_keeps_the_function(operator: Any) -> None:
    hidden = [nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(2)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Sequential(*hidden), nn.Linear(5, 2))
    model = model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trained(model, optimizer)
    grown, remade = progtrain.grow(model, optimizer, X, operator)
    assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(grown(X), model(X), rtol=1e-9, atol=1e-11)
    held = [id(p) for group in remade.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in grown.parameters())
    trained(grown, remade)


def test_groups_stay_and_new_blocks_join_those_of_their_neighbours() -> None:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(2)))
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), blocks, nn.Linear(5, 2)).double()
    named = dict(model.named_parameters())
    matrices = [p for p in named.values() if p.ndim > 1]
    biases = [p for p in named.values() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": biases, "lr": 0.02}]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    for _ in range(3):
        trained(model, optimizer, 1)
        scheduler.step()
    grown, remade = progtrain.grow(model, optimizer, X, progtrain.DeepenIdentity(add=2))
    first, second = remade.param_groups
    assert [len(first["params"]), len(second["params"])] == [len(matrices) + 2, len(biases) + 2]
    assert all(p.ndim > 1 for p in first["params"]) and first["weight_decay"] == 0.3
    assert (first["lr"], second["lr"]) == (0.005, 0.01) and second["initial_lr"] == 0.02
    scheduler.optimizer = remade
    trained(grown, remade, 1)
    scheduler.step()  # the fourth: a step of the schedule
    assert (first["lr"], second["lr"]) == (0.0025, 0.005)
    assert optimizer.param_groups[0]["lr"] == 0.005


def test_a_list_of_optimizers_grows_together_and_muon_takes_new_matrices() -> None:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.ReLU()) for _ in range(2)))
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), blocks, nn.Linear(5, 2)).double()
    named = dict(model.named_parameters())
    hidden = [p for n, p in named.items() if n.startswith("2.") and p.ndim == 2]
    rest = [p for p in named.values() if not any(p is h for h in hidden)]
    pair = [torch.optim.Muon(hidden, lr=0.01), torch.optim.AdamW(rest, lr=0.01)]
    trained(model, pair)
    operator = progtrain.DeepenIdentity()
    grown, (muon, adamw) = progtrain.grow(model, pair, X, operator)
    assert type(muon) is torch.optim.Muon and type(adamw) is GrownAdamW
    assert len(muon.param_groups[0]["params"]) == 3
    trained(grown, [muon, adamw])
    wider, (muon, adamw) = progtrain.grow(grown, [muon, adamw], X, progtrain.WidenZero())
    held = muon.state[muon.param_groups[0]["params"][0]]["momentum_buffer"]
    assert held.shape == (10, 10) and bool((held[5:] == 0).all()) and bool(held[:5, :5].any())
    trained(wider, [muon, adamw])


def test_hooks_of_an_optimizer_run_once_a_step_and_a_closure_once() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    calls: list[str] = []
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))
    trained(model, optimizer, 1)
    grown, remade = progtrain.grow(model, optimizer, X, progtrain.WidenZero())
    calls.clear()

    def closure() -> Tensor:
        calls.append("closure")
        remade.zero_grad()
        loss = nn.functional.cross_entropy(grown(X), Y)
        loss.backward()
        return loss

    assert isinstance(remade.step(closure), Tensor)
    assert calls == ["closure", "hook"]


def test_growing_twice_keeps_every_entrys_age() -> None:
    model = network()
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        trained(model, optimizer, 4)
        model, optimizer = progtrain.grow(model, optimizer, X, progtrain.WidenZero(factor=1.5))
    ones = optimizer.state[next(model.parameters())]["ones1"][:, 0]
    expected = [1 - 0.9**12] * 4 + [1 - 0.9**8] * 2 + [1 - 0.9**4] * 3 + [0.0] * 4
    torch.testing.assert_close(ones, torch.tensor(expected, dtype=torch.float64)[: len(ones)])
    trained(model, optimizer)


def test_the_state_of_a_grown_adamw_goes_through_its_state_dict() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trained(model, optimizer)
    grown, remade = progtrain.grow(model, optimizer, X, progtrain.WidenZero())
    other = copy.deepcopy(grown)
    loaded = GrownAdamW(other.parameters(), lr=0.5)
    loaded.load_state_dict(copy.deepcopy(remade.state_dict()))
    trained(grown, remade)
    trained(other, loaded)
    pairs = zip(grown.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_grown_adam_is_torchs_until_something_grows() -> None:
    for theirs, ours in ((torch.optim.Adam, GrownAdam), (torch.optim.AdamW, GrownAdamW)):
        pairs = [(network(), kind) for kind in (theirs, ours)]
        for model, kind in pairs:
            trained(model, kind(model.parameters(), lr=0.01, weight_decay=0.1))
        (one, _), (two, _) = pairs
        same = zip(one.parameters(), two.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)


def test_other_optimizers_get_the_mean_of_second_moments_and_odd_ones_are_refused() -> None:
    model = network()
    optimizer = torch.optim.RAdam(model.parameters(), lr=0.01)
    trained(model, optimizer)
    grown, remade = progtrain.grow(model, optimizer, X, progtrain.WidenZero())
    assert type(remade) is torch.optim.RAdam
    old = optimizer.state[next(model.parameters())]["exp_avg_sq"]
    new = remade.state[next(grown.parameters())]["exp_avg_sq"]
    torch.testing.assert_close(new[4:], old.mean().expand(4, 6))
    trained(grown, remade)
    odd = torch.optim.Adafactor(model.parameters())
    trained(model, odd)
    with pytest.raises(GrowthError, match=r"Adafactor keeps state.*AdamW"):
        progtrain.grow(model, odd, X, progtrain.WidenZero())


RAMPS = [progtrain.LinearRamp, progtrain.CosineRamp, progtrain.ExponentialRamp]


@pytest.mark.parametrize("kind", RAMPS)
def test_a_ramp_begins_with_the_hosts_function_and_ends_without_hooks(kind: Any) -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    trained(model, optimizer)
    grown, remade, ramp = progtrain.grow(
        model, optimizer, X, progtrain.WidenRandom(), warmup=kind(length="4steps")
    )
    torch.testing.assert_close(grown(X), model(X))
    alphas = []
    for _ in range(6):
        alphas.append(ramp.step())
        trained(grown, remade, 1)
    assert alphas == sorted(alphas) and 0 < alphas[0] < alphas[1] < 1
    assert alphas[3:] == [1.0, 1.0, 1.0] and ramp.over
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in grown.modules())
    progtrain.grow(grown, remade, X, progtrain.WidenZero())


def test_alpha_is_what_the_network_computes_with() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    grown, _, ramp = progtrain.grow(
        model, optimizer, X, progtrain.WidenRandom(spaces="2"),
        warmup=progtrain.LinearRamp(length="2steps"),
    )  # fmt: skip
    begin = grown(X)
    ramp.step()
    halfway = grown(X)
    ramp.step()
    torch.testing.assert_close(halfway, (begin + grown(X)) / 2)  # the last layer is linear
    assert not torch.allclose(begin, grown(X))


def test_a_ramp_that_is_not_over_keeps_its_model_from_growing() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ramp = progtrain.LinearRamp(length="4steps")
    grown, remade, _ = progtrain.grow(model, optimizer, X, progtrain.WidenRandom(), warmup=ramp)
    with pytest.raises(GrowthError, match=r"middle of a ramp"):
        progtrain.grow(grown, remade, X, progtrain.WidenZero())


def test_zero_init_is_over_at_once() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    grown, _, ramp = progtrain.grow(
        model, optimizer, X, progtrain.WidenRandom(), warmup=progtrain.ZeroInit()
    )
    assert ramp.over and ramp.step() == 1.0
    torch.testing.assert_close(grown(X), model(X))


def test_what_cannot_be_is_refused_with_a_way_out() -> None:
    from progtrain.warmups.frozen_host import FrozenHost

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    random = progtrain.WidenRandom()
    with pytest.raises(ConfigError, match=r"counts steps: length='200steps', got '5%'"):
        progtrain.grow(model, optimizer, X, random, warmup=progtrain.LinearRamp())
    with pytest.raises(ConfigError, match=r"cannot warm up by FrozenHost.*LinearRamp"):
        progtrain.grow(model, optimizer, X, random, warmup=FrozenHost())
    with pytest.raises(ConfigError, match="shares weights"):
        ramp = progtrain.LinearRamp(length="2steps")
        progtrain.grow(model, optimizer, X, progtrain.WidenDuplicate(), warmup=ramp)
    with pytest.raises(ConfigError, match=r"not the model's"):
        progtrain.grow(network(), optimizer, X, random)
    with pytest.raises(GrowthError, match=r"Spaces: 0, 2"):
        progtrain.grow(model, optimizer, X, progtrain.WidenRandom(spaces="trunk"))
    with pytest.raises(ConfigError, match="_orig_mod"):
        progtrain.grow(torch.compile(model), optimizer, X, random)
    with pytest.raises(ConfigError, match="returns one tensor"):
        progtrain.grow(nn.Sequential(nn.Linear(6, 4), nn.GRU(4, 4)).double(), optimizer, X, random)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "for step" in c)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "python.md", "exec"), {})
    words = capsys.readouterr().out.split()
    assert int(words[0].replace(",", "")) == 866 and float(words[-1]) < 0.2
