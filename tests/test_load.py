"""`progtrain.load`: what a checkpoint holds computes what the run computed when it was stored."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from run_kit import Spy, parts, train, warming
from torch import Tensor, nn

import progtrain
from progtrain.checkpoint.read import read
from progtrain.checkpoint.write import write
from progtrain.errors import CheckpointError, ConfigError
from progtrain.growth.add_head import Heads
from progtrain.growth.baked import Blended
from progtrain.growth.controls import Controls
from progtrain.growth.inserted import Inserted
from progtrain.models.mlp import MLP
from progtrain.record import events_of
from progtrain.run import Run

ROOT = Path(__file__).resolve().parents[1]
EACH_STEP = ("checkpoint.every=1steps", "checkpoint.keep=100", "train.duration=16steps")
GROWING = (
    "growth=schedule",
    "growth.stages.deeper.at=3steps",
    "growth.stages.wider.at=9steps",
    "growth.consolidation=1steps",
)
TOKENS = ("data=text", "data.length=8", "data.bytes=2000", "model=gpt", "model.width=8",
          "model.heads=2", "model.depth=2")  # fmt: skip
JOINED = (
    "growth.stages.wider.operator=${insert}",
    "insert=attention",
    "insert.heads=2",
    "insert.silent=false",
)
_FOLDERS: list[TemporaryDirectory[str]] = []


@cache
def stored(*overrides: str) -> tuple[Path, dict[int, tuple[Tensor, Tensor, str]]]:
    """A run's directory; at each step its probe batch, what it computed of it, and the phases."""
    _FOLDERS.append(TemporaryDirectory())
    folder, seen = Path(_FOLDERS[-1].name), {}
    warmup: list[Any] = []

    def look(call: str, run: Run) -> None:
        if call == "stepped":
            controls = Controls(run.model, run.events, warmup[0])
            seen[run.clock.step] = (run.probe.x, computed(run.model, run.probe.x), phases(run))
            controls.lift()
            run.model.train()

    made = parts(*EACH_STEP, *overrides)
    warmup.append(made.warmup)
    train(made, folder, Spy(_without_controls(look)))
    return folder, seen


def _without_controls(look: Any) -> Any:
    """The run's own hooks are on while it is looked at; a second set would blend twice."""

    def act(call: str, run: Run) -> None:
        if call == "stepped":
            hooks = [(m, m._forward_hooks, m._forward_pre_hooks) for m in run.model.modules()]
            for module, *_ in hooks:
                module._forward_hooks = type(module._forward_hooks)()
                module._forward_pre_hooks = type(module._forward_pre_hooks)()
            look(call, run)
            for module, after, before in hooks:
                module._forward_hooks, module._forward_pre_hooks = after, before

    return act


def phases(run: Run) -> str:
    return " ".join(f"{event.alpha:g}" for event in run.events if event.alive)


def computed(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        return model(x)


CASES = {
    "plain": ("warmup=none",),
    "ramps": (*warming("linear_ramp", "4steps"),),
    "convolutions": (*warming("cosine_ramp", "4steps"), "model=cnn", "model.width=4"),
    "isolated": (*warming("linear_ramp", "4steps"), "warmup.isolated=true", "model.norm=none"),
    "tokens": (*warming("linear_ramp", "4steps"), *TOKENS),
    "tied": (*warming("linear_ramp", "4steps"), *TOKENS, "model.tied=true", "model.norm=layer"),
    "joined": (*warming("linear_ramp", "4steps"), *JOINED, "model=cnn", "model.width=4"),
    "averaged": ("warmup=none", "train.ema=0.9"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_network_computes_what_the_run_computed(name: str) -> None:
    folder, seen = stored(*GROWING, *CASES[name])
    blended = 0
    for step, (x, expected, alphas) in seen.items():
        path = folder / "checkpoints" / f"step_{step:08d}"
        model = progtrain.load(path)
        assert not model.training
        got = computed(model, x)
        halfway = any(0 < float(alpha) < 1 for alpha in alphas.split())
        blended += halfway
        if halfway:
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        else:
            assert torch.equal(got, expected), (step, alphas)
    assert blended > 2 or "warmup=none" in CASES[name]


def test_alphas_are_in_weights_but_for_new_blocks() -> None:
    """Half-way through both ramps; after them nothing of ours is left."""
    folder, seen = stored(*GROWING, *CASES["ramps"])
    halfway = {step: p for step, (_, _, p) in seen.items() if 0 < float(p or 0) < 1}
    deeper, wider = min(halfway), max(halfway)
    at = {step: folder / "checkpoints" / f"step_{step:08d}" for step in (deeper, wider, max(seen))}
    kinds = {step: {type(m) for m in progtrain.load(path).modules()} for step, path in at.items()}
    assert Blended in kinds[deeper]
    assert Blended not in kinds[wider] and Blended not in kinds[max(seen)]
    assert not any(hooks(progtrain.load(path)) for path in at.values())
    assert type(progtrain.load(folder)) is MLP


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_tied_weight_that_is_half_blended_in_leaves_its_tie_and_no_hook() -> None:
    folder, seen = stored(*GROWING, *CASES["tied"])
    step = next(s for s, (_, _, p) in seen.items() if s > 9 and 0 < float(p or 0) < 1)
    model: Any = progtrain.load(folder / "checkpoints" / f"step_{step:08d}")
    whole: Any = progtrain.load(folder)
    assert whole.head.weight is whole.embedding.weight
    assert not hooks(model)
    assert model.head.weight is model.embedding.weight  # the norm lets nothing new reach it


def test_what_has_been_inserted_stays_a_wrapper() -> None:
    folder, _ = stored(*GROWING, *CASES["joined"])
    assert any(isinstance(module, Inserted) for module in progtrain.load(folder).modules())


def test_the_average_is_another_network_of_the_same_shape() -> None:
    folder, _ = stored(*GROWING, *CASES["averaged"])
    saved = read(folder)
    average = progtrain.load(folder, average=True).state_dict()
    assert all(torch.equal(average[n], t) for n, t in saved.tensors["average"].items())
    weights = progtrain.load(folder).state_dict()
    assert weights.keys() == average.keys()
    assert not all(torch.equal(average[n], t) for n, t in weights.items())
    without, _ = stored(*GROWING, *CASES["plain"])
    with pytest.raises(CheckpointError, match=r"no average.*train\.ema"):
        progtrain.load(without, average=True)


def test_the_head_that_answers_is_the_one_that_answered() -> None:
    head = (
        "+growth.stages.head={_target_: progtrain.growth.schedule.At, at: 75%, operator: ${head}}"
    )
    more = ("head=second", head, "head.fresh=true")
    answers = []
    for named in ("first", "second"):
        folder, _ = stored(*GROWING, "warmup=none", *more, f"train.answers={named}")
        heads = next(m for m in progtrain.load(folder).modules() if isinstance(m, Heads))
        answers.append(heads.answers)
    assert answers == ["first", "second"]


def test_precision_and_device() -> None:
    folder, seen = stored(*GROWING, *CASES["plain"])
    x = seen[1][0]
    model = progtrain.load(folder, dtype=torch.float64, device=torch.device("cpu"))
    assert computed(model, x.double()).dtype == torch.float64
    with pytest.raises(ConfigError, match=r"dtype must be one of .*got torch\.int8"):
        progtrain.load(folder, dtype=torch.int8)


def test_no_random_number_is_drawn() -> None:
    folder, _ = stored(*GROWING, *CASES["plain"])
    torch.manual_seed(4)
    state = torch.get_rng_state()
    progtrain.load(folder)
    assert torch.equal(state, torch.get_rng_state())


def test_inputs_say_how_the_data_were_normalised() -> None:
    folder, _ = stored(*GROWING, *CASES["plain"])
    inputs = progtrain.read_inputs(folder)
    assert (inputs.shape, inputs.num_classes, inputs.classes) == ((1, 4, 4), 4, ())
    raw = torch.rand(2, 1, 4, 4)
    assert torch.equal(inputs.normalise(raw), raw) and not inputs.reads_tokens
    tokens = progtrain.read_inputs(stored(*GROWING, *CASES["tokens"])[0])
    assert tokens.reads_tokens and tokens.shape == (8,)


def rewritten(folder: Path, target: Path, **changes: Any) -> Path:
    """The newest checkpoint with other documents, whole and well signed."""
    saved = read(folder)
    documents: dict[str, Any] = {**saved.documents, **changes}
    documents = {name: value for name, value in documents.items() if value is not None}
    return write(target / "checkpoints", saved.step, saved.tensors, documents, 2)


def test_an_older_checkpoint_loads_but_knows_no_inputs(tmp_path: Path) -> None:
    path = rewritten(stored(*GROWING, *CASES["plain"])[0], tmp_path, inputs=None)
    assert type(progtrain.load(path)) is MLP
    with pytest.raises(CheckpointError, match=r"older progtrain.*resume="):
        progtrain.read_inputs(path)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("os.system", "refused"),
        ("hydra.utils.get_class", "refused"),
        ("my_networks.Net", r"not progtrain's.*plugins=\[my_networks\]"),
        ("progtrain.cli.os.system", "really from"),
    ],
)
def test_no_class_of_others_is_built(target: str, told: str, tmp_path: Path) -> None:
    folder, _ = stored(*GROWING, *CASES["plain"])
    config: Any = read(folder).documents["config"]
    spoilt = {**config, "model": {"_target_": target, "command": "touch harm"}}
    with pytest.raises(ConfigError, match=told):
        progtrain.load(rewritten(folder, tmp_path, config=spoilt))
    inner = {**config["model"], "activation": {"_target_": target}}
    with pytest.raises(ConfigError, match=told):
        progtrain.load(rewritten(folder, tmp_path, config={**config, "model": inner}))


def test_a_reference_in_stored_settings_is_not_followed(tmp_path: Path) -> None:
    folder, _ = stored(*GROWING, *CASES["plain"])
    config: Any = read(folder).documents["config"]
    config = {**config, "model": {**config["model"], "activation": "${oc.env:HOME}"}}
    with pytest.raises(CheckpointError, match="references"):
        progtrain.load(rewritten(folder, tmp_path, config=config))


def test_a_network_of_the_users_needs_its_package_and_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_networks.py").write_text(
        "from progtrain.models.mlp import MLP\nclass Net(MLP):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    folder, _ = stored(*GROWING, *CASES["plain"])
    config: Any = read(folder).documents["config"]
    own = {**config["model"], "_target_": "own_networks.Net"}
    # other classes of the user's are not needed to load
    config = {**config, "model": own, "warmup": {"_target_": "own_warmups.Never"}}
    path = rewritten(folder, tmp_path, config=config)
    with pytest.raises(ConfigError, match=r"plugins=\[own_networks\]"):
        progtrain.load(path)
    assert type(progtrain.load(path, plugins=["own_networks"])).__name__ == "Net"


def test_importing_progtrain_does_not_import_torch() -> None:
    code = "import sys, progtrain; dir(progtrain); assert 'torch' not in sys.modules; "
    code += "progtrain.load; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_events_say_what_is_still_blended() -> None:
    folder, seen = stored(*GROWING, *CASES["ramps"])
    step = next(s for s, (_, _, p) in seen.items() if 0 < float(p or 0) < 1)
    saved = read(folder / "checkpoints" / f"step_{step:08d}")
    assert [f"{e.alpha:g}" for e in events_of(saved) if e.alive] == seen[step][2].split()
