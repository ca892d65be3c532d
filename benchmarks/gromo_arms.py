"""The arms of `gromo_digits.py`: how each grows the two hidden layers of one MLP.

Ours grow by an operator of conf/widen and carry the optimizer's state. gromo 0.1.0 has no part in
the optimizer, so its arms make a new one at each growth, as its tutorials do; `fresh optimizer`
says what that costs. What gromo leaves to its user is set so: layers grow one after the other, each
with statistics of its own; TINY's factor is the best of powers of two on the growth batch; GradMax
scales what reads new units to the mean norm of what reads old ones (its paper); where gradients
have less rank than units are asked for, the rest is drawn and read by zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from progtrain.contracts import Operator, StatePolicy
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Host, carry_optimizer, grow
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.growth.operators.widen_firefly import WidenFirefly
from progtrain.growth.operators.widen_gradmax import WidenGradmax
from progtrain.growth.operators.widen_ligo import WidenLigo
from progtrain.growth.operators.widen_paired import WidenPaired
from progtrain.growth.operators.widen_random import WidenRandom
from progtrain.growth.operators.widen_sparkling import WidenSparkling
from progtrain.growth.operators.widen_zero import WidenZero
from progtrain.growth.transaction import sliced_tensors
from progtrain.optimizer_states.asymmetric import AsymmetricState
from progtrain.optimizer_states.reset import ResetState
from progtrain.optimizers.adamw import AdamW
from progtrain.optimizers.group import OptimizerSet
from progtrain.run import Probe

SCALES = [2.0**power for power in range(-4, 8)]  # factors that TINY may take


def an_mlp(width: int) -> nn.Sequential:
    """64 – width – width – 10 with SELU, gromo's default: GradMax needs a slope at zero."""
    hidden = [nn.Linear(64, width), nn.SELU(), nn.Linear(width, width), nn.SELU()]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


class Arm:
    """A network that never grows: training from scratch."""

    def __init__(self, model: nn.Module, recipe: AdamW) -> None:
        self.model, self.recipe = model, recipe
        self.optimizer = self.renewed()

    def renewed(self) -> OptimizerSet:
        return self.recipe.build(dict(self.model.named_parameters()), frozenset())

    def grow(self, width: int, probe: Probe) -> None:
        raise AssertionError("this arm does not grow")


@dataclass
class Ours:
    """One of our operators."""

    model: nn.Module
    recipe: AdamW
    operator: Callable[[int], Operator]
    policy: StatePolicy
    edits: list[Edit] = field(default_factory=lambda: list[Edit]())

    def __post_init__(self) -> None:
        self.optimizer = self.recipe.build(dict(self.model.named_parameters()), frozenset())

    def grow(self, width: int, probe: Probe) -> None:
        grown = grow(Host(self.model, probe), self.operator(width), seed=width)
        self.edits.append(grown.edit)
        sliced, old = sliced_tensors(self.edits), self.optimizer
        self.optimizer = self.recipe.build(dict(grown.model.named_parameters()), sliced)
        carry_optimizer(old, self.optimizer, grown, sliced, self.recipe, self.policy)
        self.model = grown.model


class Gromo(Arm):
    """gromo's growing MLP; `widen` makes a layer's extensions and applies them."""

    def __init__(self, start: nn.Sequential, recipe: AdamW, widen: Callable[..., None]) -> None:
        from gromo.containers.growing_mlp import GrowingMLP

        width = start[0].out_features
        model: Any = GrowingMLP(64, 10, width, 2, activation=nn.SELU())
        linear = [layer for layer in start if isinstance(layer, nn.Linear)]
        for ours, theirs in zip(linear, model.layers, strict=True):
            theirs.layer.load_state_dict(ours.state_dict())
        super().__init__(model, recipe)
        self.widen = widen

    def grow(self, width: int, probe: Probe) -> None:
        model: Any = self.model
        for layer in list(model.layers)[1:]:
            self.widen(model, layer, width - layer.in_features, probe)
        self.optimizer = self.renewed()


def drawn(**settings: Any) -> Callable[..., None]:
    """Extensions by gromo's initialisations."""

    def widen(model: Any, layer: Any, add: int, probe: Probe) -> None:
        layer.create_layer_extensions(add, **settings)
        layer.apply_change(extension_size=add, scaling_factor=1.0)
        layer.delete_update(include_previous=True)

    return widen


SILENT = drawn(input_extension_init="zeros")


def tiny(model: Any, layer: Any, add: int, probe: Probe) -> None:
    """Natural-gradient units (TINY), with the factor that lowers the loss most."""
    solve(model, layer, add, probe, compute_delta=False)
    losses: list[Tensor] = []
    with torch.no_grad():
        for scale in SCALES:
            layer.scaling_factor = scale
            losses.append(F.cross_entropy(model.extended_forward(probe.x), probe.y))
    apply(layer, add, scaling_factor=SCALES[int(torch.stack(losses).argmin())])


def gradmax(model: Any, layer: Any, add: int, probe: Probe) -> None:
    """Units that nothing computes yet, read along the largest singular vectors."""
    solve(
        model,
        layer,
        add,
        probe,
        compute_delta=False,
        use_covariance=False,
        alpha_zero=True,
        use_projection=False,
        ignore_singular_values=True,
    )
    weights = (layer.weight, layer.extended_input_layer.weight)
    old, new = (w.detach().norm(dim=0).mean() for w in weights)
    scale = float(old / new)
    apply(layer, add, input_extension_scaling=scale, output_extension_scaling=1.0)


def solve(model: Any, layer: Any, add: int, probe: Probe, **settings: Any) -> None:
    """gromo's statistics on the growth batch, and the units that follow from them."""
    model.zero_grad()
    layer.init_computation()
    F.cross_entropy(model(probe.x), probe.y).backward()
    layer.update_computation()
    # its threshold would leave few units, as it is not relative to the size of the gradients
    layer.compute_optimal_updates(maximum_added_neurons=add, statistical_threshold=0.0, **settings)
    layer.reset_computation()
    model.zero_grad()


def apply(layer: Any, add: int, **scales: float) -> None:
    """Join what was solved for, and as many silent units as the rank has left over."""
    before = layer.in_features
    layer.apply_change(**scales)
    layer.delete_update(include_previous=True)
    missing = before + add - layer.in_features
    if missing:
        SILENT(None, layer, missing, None)


GROMO: dict[str, Callable[..., None]] = {
    "gromo zeros": SILENT,
    "gromo copy_uniform (its default)": drawn(),
    "gromo copy_uniform, variance transfer": drawn(rescaling="default_vt"),
    "gromo pairs (vv_z_negz)": drawn(neuron_pairing="vv_z_negz"),
    "gromo GradMax": gradmax,
    "gromo TINY": tiny,
}
OURS: dict[str, tuple[Callable[[int], Operator], StatePolicy]] = {
    "widen=zero": (lambda n: WidenZero(size=n), AsymmetricState()),
    "widen=zero, fresh optimizer": (lambda n: WidenZero(size=n), ResetState()),
    "widen=random": (lambda n: WidenRandom(size=n), AsymmetricState()),
    "widen=sparkling": (lambda n: WidenSparkling(size=n), AsymmetricState()),
    "widen=paired": (lambda n: WidenPaired(size=n), AsymmetricState()),
    "widen=duplicate": (lambda n: WidenDuplicate(size=n), AsymmetricState()),
    "widen=gradmax": (lambda n: WidenGradmax(size=n), AsymmetricState()),
    "widen=firefly": (lambda n: WidenFirefly(size=n), AsymmetricState()),
    "widen=ligo": (lambda n: WidenLigo(size=n), AsymmetricState()),
}


def arm(name: str, width: int, recipe: AdamW) -> Arm | Ours:
    """The arm of that name with a network that starts `width` wide; `scratch …` never grows."""
    model = an_mlp(width)
    if name in GROMO:
        return Gromo(model, recipe, GROMO[name])
    if name in OURS:
        return Ours(model, recipe, *OURS[name])
    return Arm(model, recipe)
