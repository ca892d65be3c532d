"""Law 1: what promises to preserve the function does, on every network, to 1e-12 in float64.

Operators come from `conf/widen` and `conf/deepen`; a new one is tested by existing.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from growth_kit import (  # noqa: F401
    CONF,
    MODELS,
    QUICK,
    TRANSFORMERS,
    a_host,
    a_machine,
    a_model,
    an_event,
    changed,
    grow_now,
    make,
    old_part,
    one_thread,
    options,
    train,
)
from omegaconf import OmegaConf
from torch import nn

from progtrain.contracts import Operator
from progtrain.errors import ConfigError, GrowthError, NothingToGrowError, SettingError
from progtrain.growth.controls import Controls
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host, grow
from progtrain.growth.identity import silence_newborn
from progtrain.growth.newborn import evaluate
from progtrain.growth.operators import deepen
from progtrain.growth.operators.deepen_identity import DeepenIdentity
from progtrain.growth.operators.deepen_random import DeepenRandom
from progtrain.growth.operators.deepen_stack import DeepenStack
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.transaction import check_pair
from progtrain.growth.widen_space import Role, WidenSpace
from progtrain.run import no_template
from progtrain.warmups.linear_ramp import LinearRamp

EXACT = 1e-12
FACTORS = (1.25, 2.0, 3.0)
WIDTHS = {"resnet": 4, "flat": 4, "user": 4} | dict.fromkeys(TRANSFORMERS, 16)  # 8 of the others
NORMED = {"mlp_layer", *TRANSFORMERS}  # over the units of a space
STACKLESS = {"flat"}
NO_IDENTITY = {"mlp_layer"}  # a plain block with a layer norm
PLAIN = {"mlp_none", "mlp_batch", "mlp_layer", "cnn"}  # no branch is added to what a block reads
DRAWS_NOTHING = {"stack", "interleave", "interleave_half", "middle", "last"}  # copies, no seed
# the last layers of residual branches, which interleave_half divides
ENDS = {
    "resnet": r"blocks\.\d\.norm\.(weight|bias)",
    "user": r"mixers\.\d\.out\.weight",
    **dict.fromkeys(TRANSFORMERS, r"blocks\.\d\.(attention\.o|mlp\.down)\.weight"),
}

HEADINGS = ("What:", "Equation:", "Hyperparameters:", "When it fails:", "Evidence:", "Reference:")

Case = tuple[str, str, str, float]


def sweep() -> Iterator[Case]:
    """(group, option, model, factor or number of blocks) of all that fit together."""
    for model in MODELS:
        for option in options("widen"):
            yield from (("widen", option, model, factor) for factor in FACTORS)
        for option in options("deepen") if model not in STACKLESS else ():
            unfit = {"identity": NO_IDENTITY, "interleave_half": PLAIN}.get(option, set[str]())
            if model not in unfit:
                yield from (("deepen", option, model, add) for add in (1, 2))


def ids(case: Case) -> str:
    return "-".join(map(str, case))


def operator_of(case: Case):
    group, option, _, amount = case
    return make(group, option, **QUICK, **{"factor" if group == "widen" else "add": amount})


@functools.cache
def grown_of(case: Case, seed: int = 7) -> Grown:
    """Shared by the tests, which leave it as it is."""
    return grow(a_host(case[2]), operator_of(case), seed)


CASES = list(sweep())
PRESERVING = [case for case in CASES if operator_of(case).preserves]
BLENDABLE = [case for case in CASES if not operator_of(case).shares]
# the identity of a plain block has a batch norm, which sees other batches in training than its own
EXACT_IN_TRAINING = [
    case
    for case in PRESERVING
    if case[0] == "widen" or case[2] in ("resnet", "user", "mlp_none", *TRANSFORMERS)
]


@pytest.mark.parametrize("case", PRESERVING, ids=ids)
def test_an_operator_that_preserves_does_so_in_evaluation(case: Case) -> None:
    grown = grown_of(case)
    if not grown.edit.inexact:
        assert changed(grown.host.model, grown.model, grown.x) <= EXACT
    else:
        assert case[2] in NORMED and case[1] == "duplicate" and case[3] % 1


@pytest.mark.parametrize("case", EXACT_IN_TRAINING, ids=ids)
def test_an_operator_that_preserves_does_so_in_training(case: Case) -> None:
    grown = grown_of(case)
    if not grown.edit.inexact:
        assert changed(grown.host.model, grown.model, grown.x, training=True) <= EXACT


@pytest.mark.parametrize("case", BLENDABLE, ids=ids)
def test_every_operator_is_exact_once_newborns_are_silenced(case: Case) -> None:
    grown = copy.deepcopy(grown_of(case))
    if case[0] == "deepen" and case[2] in NO_IDENTITY:
        with pytest.raises(GrowthError, match="cannot be made the identity"):
            silence_newborn(grown)
    else:
        silence_newborn(grown)
        assert changed(grown.host.model, grown.model, grown.x) <= EXACT


@pytest.mark.parametrize("case", BLENDABLE, ids=ids)
def test_every_operator_is_exact_behind_closed_gates_and_whole_behind_open_ones(case: Case) -> None:
    grown = grown_of(case)
    whole = changed(grown.host.model, grown.model, grown.x)
    for alpha in (0.0, 1.0):
        controls = Controls(grown.model, [an_event(grown.edit, alpha)], LinearRamp())
        gap = changed(grown.host.model, grown.model, grown.x)
        assert gap <= EXACT if alpha == 0 else abs(gap - whole) <= EXACT
        controls.lift()
    silent = operator_of(case).preserves or case[1:3] == ("firefly", "mlp_layer")  # all are normed
    assert silent or whole > 1e-3, "the gates had nothing to hide"


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_a_grown_network_is_shaped_as_one_built_at_that_size(case: Case) -> None:
    """Tensors, and the attributes that layers print: in_features, num_features, groups, …"""
    group, _, name, amount = case
    if group == "widen" and name == "vit" and amount == 1.25:
        pytest.skip("three heads of 8 over a width of 20: ViT's heads divide its width")
    model = grown_of(case).model
    depth = 2 if name.startswith("mlp") or name in TRANSFORMERS else 1
    if group == "widen":
        sizes = {"width": int(WIDTHS.get(name, 8) * amount)}
        if name in TRANSFORMERS:
            sizes |= {"heads": max(3, int(2 * amount)), "hidden": int(64 * amount)}
        fresh = a_model(name, **sizes)
    else:
        fresh = a_model(name, depth=int(depth + amount))
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in fresh.state_dict().items()}
    assert without_eps(model) == without_eps(fresh)
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def without_eps(model: nn.Module) -> str:
    """As printed; padding changes the eps of norms on purpose."""
    return re.sub(r"(LayerNorm|RMSNorm)\((.*), eps=.*?,", r"\1(\2,", str(model))


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_host_entries_stay_bit_for_bit(case: Case) -> None:
    """But for what the mathematics must change: shared columns and branches, gains of padded
    norms."""
    if case[1] == "ligo":
        pytest.skip("it mixes all weights anew")
    grown = grown_of(case)
    now = grown.model.state_dict()
    for name, old in grown.host.model.state_dict().items():
        if name not in rescaled(case, grown):
            inner = 16 if name == "hidden.weight" else 1
            assert torch.equal(old_part(now[grown.edit.rename(name)], old, inner), old), name


def rescaled(case: Case, grown: Grown) -> set[str]:
    """Tensors whose old entries an operator may scale."""
    if case[1] == "interleave_half":
        return {name for name in grown.host.model.state_dict() if re.search(ENDS[case[2]], name)}
    widened = [change for change in grown.edit.changes if isinstance(change, WidenSpace)]
    scaled = {gain for change in widened for gain in change.rescaled_norms}
    if operator_of(case).shares:
        reading = (Role.CONSUMER, Role.KEY)
        scaled |= {p.tensor for c in widened for p in c.parts if p.role in reading}
        scaled |= {name for c in widened for gain in c.sharing for name in (gain, bias_of(gain))}
    return scaled


def bias_of(gain: str) -> str:
    return gain.removesuffix("weight") + "bias"


@pytest.mark.parametrize("name", ["mlp_none", "resnet"])
def test_random_weights_are_as_large_as_the_old_ones(name: str) -> None:
    """Rows and columns alike, also where both dimensions of a matrix grow at once."""
    grown = grow(a_host(name, width=32), WidenRandom(), 7)
    for slab in grown.edit.slabs():
        tensor, old = (m.state_dict()[slab.tensor] for m in (grown.model, grown.host.model))
        if tensor.ndim > 1:
            assert 0.85 < float(slab.read(tensor).std() / old.std()) < 1.15, slab


@pytest.mark.parametrize("operator", [WidenRandom(), DeepenRandom(), DeepenStack()])
def test_new_batch_norm_channels_know_the_statistics_of_what_they_see(operator: Operator) -> None:
    """With mean 0 and variance 1 evaluation would be wrong until the averages have caught up."""
    grown = grow(a_host("mlp_batch"), operator, 7)
    norm = grown.model.get_submodule("blocks.2.norm" if grown.edit.blocks() else "blocks.1.norm")
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    evaluate(grown.model, grown.x)
    handle.remove()
    new = slice(0 if grown.edit.blocks() else 8, None)
    statistics = seen[0].mean(0), seen[0].var(0, correction=0)
    for running, wanted in zip((norm.running_mean, norm.running_var), statistics, strict=True):
        assert torch.allclose(running[new], wanted[new], rtol=1e-9)


@pytest.mark.parametrize("group", ["widen", "deepen"])
def test_the_seed_decides_the_grown_network(group: str) -> None:
    for option in options(group):
        case = (group, option, "resnet", 2.5 if group == "widen" else 2)
        first, again, other = (grown_of(case, seed).model.state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(first[name], again[name]) for name in first)
        differs = any(not torch.equal(first[name], other[name]) for name in first)
        assert differs == (option not in DRAWS_NOTHING)


@pytest.mark.parametrize("case", [c for c in CASES if c[2] in ("resnet", "flat")], ids=ids)
def test_growing_touches_neither_the_host_nor_global_random_numbers(case: Case) -> None:
    host = a_host(case[2])
    host.model.train()
    before = {name: tensor.clone() for name, tensor in host.model.state_dict().items()}
    state = torch.get_rng_state()
    grown = grow(host, operator_of(case), 7)
    if not operator_of(case).shares:
        silence_newborn(grown)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in host.model.state_dict().items())
    assert all(module.training for model in (host.model, grown.model) for module in model.modules())


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_an_edit_survives_json_and_rebuilds_the_shapes(case: Case) -> None:
    grown = grown_of(case)
    stored = Edit.from_json(json.loads(json.dumps(grown.edit.to_json())))
    assert stored == grown.edit
    replayed = a_model(case[2])
    stored.apply(replayed)
    assert str(replayed) == str(grown.model)
    assert stored.describe()


@pytest.mark.parametrize("name", [n for n in MODELS if n not in STACKLESS | NO_IDENTITY])
def test_three_growths_in_a_row_preserve_the_function_and_replay(name: str) -> None:
    start, edits = a_host(name), list[Edit]()
    host, factor = start, 2.0 if name in NORMED else 1.5
    for operator in (WidenDuplicate(factor=factor), DeepenIdentity(), WidenZero(factor=1.25)):
        grown = grow(host, operator, 3)
        edits.append(grown.edit)
        host = Host(grown.model, host.probe)
    assert changed(start.model, host.model, host.probe.x) <= EXACT
    replayed = a_model(name)
    for edit in edits:
        edit.apply(replayed)
    assert str(replayed) == str(host.model)
    shapes = {key: tensor.shape for key, tensor in host.model.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in replayed.state_dict().items()}


@pytest.mark.parametrize("operator", [WidenZero(), WidenRandom(), WidenDuplicate()])
def test_only_the_spaces_that_match_grow(operator: WidenZero) -> None:
    chosen = type(operator)(spaces="blocks.0*|head|stem")
    edit = chosen.propose(a_host("mlp_batch"))
    assert [c.space for c in edit.changes if isinstance(c, WidenSpace)] == [
        "stem",
        "blocks.0.linear",
    ]
    deeper = DeepenIdentity(stacks="stages.1*").propose(a_host("cnn"))
    assert deeper.describe() == "+1 block in stages.1.blocks"


def test_a_pattern_that_matches_nothing_names_what_is_near() -> None:
    with pytest.raises(GrowthError, match=r"widen\.spaces=stam .* Did you mean 'stem'\?"):
        WidenZero(spaces="stam").propose(a_host("mlp_none"))
    with pytest.raises(GrowthError, match=r"deepen\.stacks=block .* Did you mean 'blocks'\?"):
        DeepenIdentity(stacks="block").propose(a_host("mlp_none"))
    with pytest.raises(GrowthError, match=r"nothing that can grow \(head: it is the model's out"):
        WidenZero(spaces="head").propose(a_host("mlp_none"))


@pytest.mark.parametrize("factor", [1.0, 0.5, -2.0, 0.0, 65.0, float("nan"), float("inf")])
@pytest.mark.parametrize("option", options("widen"))
def test_a_factor_that_does_not_widen_is_refused(option: str, factor: float) -> None:
    with pytest.raises(SettingError, match=r"factor must be in \(1, 64\]"):
        make("widen", option, factor=factor)


@pytest.mark.parametrize("add", [0, -1, 10_001])
@pytest.mark.parametrize("option", options("deepen"))
def test_a_number_of_blocks_that_does_not_deepen_is_refused(option: str, add: int) -> None:
    with pytest.raises(SettingError, match="add must be a whole number, 1 to 10000"):
        make("deepen", option, add=add)


@pytest.mark.parametrize("option", options("deepen"))
def test_a_model_without_stacks_cannot_deepen(option: str) -> None:
    for name, sizes in (("flat", {}), ("mlp_none", {"depth": 0})):
        host = replace(a_host(name, **sizes), template=no_template)
        with pytest.raises(NothingToGrowError, match=r"does not support this .*widen instead"):
            make("deepen", option).propose(host)


@pytest.mark.parametrize("name", sorted(NO_IDENTITY))
def test_what_cannot_be_the_identity_is_refused(name: str) -> None:
    with pytest.raises(GrowthError, match=r"cannot be made the identity.*deepen=random with a ram"):
        grow(a_host(name), DeepenIdentity(), 0)


def test_shared_outgoing_weights_are_not_blended_in() -> None:
    for option in options("warmup"):
        warmup = make("warmup", option)
        if warmup.blends or warmup.zeroes:
            for operator in (WidenDuplicate(), make("deepen", "interleave_half")):
                told = rf"{type(operator).__name__} shares .* warmup=none .* widen=random, widen=ze"
                with pytest.raises(ConfigError, match=told):
                    check_pair(operator, warmup)
        else:
            check_pair(WidenDuplicate(), warmup)
            check_pair(make("deepen", "interleave_half"), warmup)


@pytest.mark.parametrize("name", ["mlp_batch", "cnn"])
def test_a_run_grows_to_the_number_of_parameters_it_says(name: str) -> None:
    machine = a_machine(a_model(name), make("optimizer", "sgd", lr=0.01))
    train(machine, 2)
    for operator in (WidenZero(factor=1.5), DeepenIdentity()):
        event = grow_now(machine, operator)
        real = sum(p.numel() for p in machine.run.model.parameters())
        assert event.params_after == machine.run.params == real > event.params_before
        assert event.preservation_error <= 1e-12 and event.promised
        assert event.flops_after == machine.run.flops > event.flops_before


def operators() -> list[str]:
    """Targets of every operator that has a YAML."""
    paths = [
        p for group in ("widen", "deepen", "insert", "head") for p in (CONF / group).glob("*.yaml")
    ]
    return sorted(str(OmegaConf.load(path)["_target_"]) for path in paths)


@pytest.mark.parametrize("target", operators())
def test_every_operator_has_its_card(target: str) -> None:
    card = importlib.import_module(target.rpartition(".")[0]).__doc__ or ""
    places = [card.find(f"\n{heading}") for heading in HEADINGS]
    assert all(place > 0 for place in places) and places == sorted(places)


def test_every_module_with_an_operator_is_among_those_with_cards() -> None:
    folder = Path(deepen.__file__).parent
    texts = {path.stem: path.read_text("utf-8") for path in folder.glob("*.py")}
    made = ("def propose(", "(Copies):")
    proposing = {name for name, text in texts.items() if any(word in text for word in made)}
    shared = {"deepen"}
    assert proposing - shared == {target.split(".")[-2] for target in operators()}
