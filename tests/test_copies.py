"""Law 3: copies do not stay copies.

Equal units that get equal gradients are one unit for ever, at the price of two.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from growth_kit import (  # noqa: F401
    SHAPE,
    a_machine,
    a_set,
    grow_now,
    lively,
    make,
    one_thread,
    options,
    train,
)
from torch import Tensor, nn

from progtrain.growth.operators.deepen_stack import DeepenStack
from progtrain.growth.operators.widen_duplicate import WidenDuplicate
from progtrain.machine import Machine
from progtrain.models.cnn import CNN
from progtrain.models.mlp import MLP
from progtrain.models.resnet import ResNet
from progtrain.optimizers.sgd import SGD

CLASSES = 10
OF_KERNELS = [name for name in options("optimizer") if name != "muon"]  # there it is AdamW
Layers = list[tuple[str, str]]  # who computes a space, and who reads it

MLP_LAYERS: Layers = [
    ("stem.weight", "blocks.0.linear.weight"),
    ("blocks.0.linear.weight", "blocks.1.linear.weight"),
    ("blocks.1.linear.weight", "head.weight"),
]
CNN_LAYERS: Layers = [
    ("stages.0.entry.conv.weight", "stages.0.blocks.0.conv.weight"),
    ("stages.1.blocks.0.conv.weight", "head.weight"),
]
# tanh: a dead unit learns nothing, so its copies may stay equal
NETS: dict[str, tuple[Callable[[], nn.Module], Layers]] = {
    "mlp_none": (lambda: MLP(SHAPE, CLASSES, 8, 2, "none", "tanh"), MLP_LAYERS),
    "mlp_batch": (lambda: MLP(SHAPE, CLASSES, 8, 2, "batch", "tanh"), MLP_LAYERS),
    "cnn": (lambda: CNN(SHAPE, CLASSES, 6, 1, 2, activation="tanh"), CNN_LAYERS),
}


def a_trained(model: Callable[[], nn.Module], recipe: object) -> Machine:
    torch.manual_seed(0)
    machine = a_machine(lively(model()), recipe, sets=a_set(384, CLASSES))  # type: ignore[arg-type]
    train(machine, 20)
    return machine


def units(model: nn.Module, layer: tuple[str, str]) -> list[Tensor]:
    """What each unit is: incoming and outgoing weights in one vector."""
    rows, columns = (model.get_parameter(name).detach() for name in layer)
    return [torch.cat([rows[i].flatten(), columns[:, i].flatten()]) for i in range(rows.shape[0])]


def copies(model: nn.Module, layer: tuple[str, str]) -> list[tuple[int, int]]:
    """Pairs of units that compute the same now."""
    rows = model.get_parameter(layer[0]).detach()
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    return [(i, j) for i, j in pairs if torch.equal(rows[i], rows[j])]


def likeness(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.flatten(), b.flatten(), 0))


def after_training(
    name: str, recipe: object, operator: WidenDuplicate
) -> dict[tuple[str, str], list[float]]:
    """Likeness of all units that were copies of one another 200 steps ago, by layer."""
    model, layers = NETS[name]
    machine = a_trained(model, recipe)
    grow_now(machine, operator)
    pairs = {layer: copies(machine.run.model, layer) for layer in layers}
    assert all(pairs.values())
    train(machine, 200)
    seen = {layer: units(machine.run.model, layer) for layer in layers}
    return {
        layer: [likeness(seen[layer][i], seen[layer][j]) for i, j in found]
        for layer, found in pairs.items()
    }


@pytest.mark.parametrize(
    ("name", "factor", "recipe"),
    [("mlp_none", 2.0, recipe) for recipe in options("optimizer")]
    + [("mlp_batch", 3.0, recipe) for recipe in options("optimizer")]
    + [("cnn", 3.0, recipe) for recipe in OF_KERNELS],
)
def test_duplicated_units_differ_after_two_hundred_steps(
    name: str, factor: float, recipe: str
) -> None:
    """At factor 3 two copies of each unit are new, and only their shares tell them apart."""
    operator = make("widen", "duplicate", factor=factor)
    for layer, seen in after_training(name, make("optimizer", recipe), operator).items():
        assert max(seen) < 0.99, layer


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_equal_shares_lock_copies_together_which_the_law_would_see(factor: float) -> None:
    operator = WidenDuplicate(factor=factor, unevenness=0.0)
    plain = SGD(lr=0.1, momentum=0.0, nesterov=False)
    for layer, seen in after_training("mlp_batch", plain, operator).items():
        assert min(seen) > 0.999, layer


@pytest.mark.parametrize("recipe", options("optimizer"))
def test_equal_shares_lock_new_copies_under_every_optimizer(recipe: str) -> None:
    """Copies that are both new have equal state too; this is what uneven shares are for."""
    operator = WidenDuplicate(factor=3.0, unevenness=0.0)
    for layer, seen in after_training("mlp_batch", make("optimizer", recipe), operator).items():
        assert max(seen) > 0.999, layer


DEEP: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mlp": (lambda: MLP(SHAPE, CLASSES, 8, 1, "batch", "tanh"), "blocks"),
    "resnet": (lambda: ResNet(SHAPE, CLASSES, 4, 1, 2), "stages.1.blocks"),
}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("mlp", recipe) for recipe in options("optimizer")]
    + [("resnet", recipe) for recipe in OF_KERNELS],
)
def test_copied_blocks_differ_after_two_hundred_steps(recipe: str, name: str) -> None:
    model, stack = DEEP[name]
    machine = a_trained(model, make("optimizer", recipe))
    grow_now(machine, DeepenStack(add=2))
    blocks = list(machine.run.model.get_submodule(stack).children())
    assert len(blocks) == 3

    def kernels(block: nn.Module) -> Tensor:
        return torch.cat([p.detach().flatten() for p in block.parameters() if p.ndim > 1])

    assert likeness(kernels(blocks[0]), kernels(blocks[2])) > 1 - 1e-9
    train(machine, 200)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert likeness(kernels(blocks[i]), kernels(blocks[j])) < 0.99
