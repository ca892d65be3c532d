"""Deepen by interleaved copies that share their residual branch with the original.

What: as interleave, but the last layer of every residual branch of original and copies is divided
by how many they are, so that together they add about what the original has added alone.

Equation: x + f(x) becomes c steps x <- x + f(x)/c, c copies (1/2 where blocks are doubled). The
change is of second order in the branch: f(x + f(x)/c) - f(x) ~ f'(x) f(x)/c. In the view of a
network as Euler steps of an ODE, c steps of size h/c take the place of one of size h.

Hyperparameters: stacks (shell patterns), add (blocks for every stack).

When it fails: a block without a branch that is added to its input has nothing to divide and is
refused. Blocks whose branches are not small move the function, and no warmup that begins silent can
help, as the originals have given half of theirs away. A branch through a batch norm is divided at
the norm's gain, so it stays divided whatever the statistics are.

Evidence: function kept to first order (tests/test_deepen.py: a tenth of the branches leaves a
hundredth of the error, a tenth with interleave). What it saves in training is not measured here.

Reference: Chang et al., Multi-level Residual Networks from Dynamical Systems View, arXiv
1710.10348; Dong et al., Towards Adaptive Residual Network Training (LipGrow), ICML 2020.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from progtrain.errors import GrowthError
from progtrain.growth.branches import branch_ends
from progtrain.growth.edits import Edit
from progtrain.growth.grow import Grown, Host
from progtrain.growth.insert_block import InsertBlock, child_names, container, inserted
from progtrain.growth.newborn import calibrate, evaluate, input_of
from progtrain.growth.operators.deepen import check_deepen, copied
from progtrain.growth.operators.orders import interleave

_MISS = 1e-4  # how far a block may be from its input without its branches


def families(edit: Edit, host: nn.Module) -> list[list[str]]:
    """Originals with their copies; interleaving goes from front to back, so no name moves on."""
    found: list[list[str]] = []
    names: dict[str, list[str]] = {}
    for change in (c for c in edit.changes if isinstance(c, InsertBlock)):
        now = names.setdefault(change.stack, child_names(container(host, change.stack)))
        source = f"{change.stack}.{now[change.source]}".removeprefix(".")
        names[change.stack] = inserted(now, change.at, change.child)
        family = next((family for family in found if source in family), [])
        if not family:
            found.append(family)
            family.append(source)
        family.append(change.block)
    return found


def _check_residual(host: Host, name: str) -> None:
    """Refuse a block that is not its input once its branches are silent."""
    block = host.model.get_submodule(name)
    given = input_of(host.model, block, host.probe.x)
    trial = copy.deepcopy(block)
    ends = branch_ends(trial, *given.args, homogeneous=True, **given.kwargs)
    for end in ends:
        end.detach().zero_()
    out = evaluate(trial, *given.args, **given.kwargs)
    if not ends or not torch.allclose(out, given.x, atol=_MISS, rtol=_MISS):
        raise GrowthError(
            f"deepen=interleave_half divides what a block adds to its input, and {name}"
            f" ({type(block).__name__}) has no such residual branch that ends in a linear layer, a"
            " convolution, a norm or a scale. Use deepen=interleave, or a residual model (resnet,"
            " vit, gpt)."
        )


@dataclass(frozen=True)
class DeepenInterleaveHalf:
    """`add` blocks in every stack that matches `stacks`; `add` = depth halves every branch."""

    stacks: str = "*"
    add: int = 1
    preserves = False
    shares = True

    def __post_init__(self) -> None:
        check_deepen(self.add)

    def propose(self, host: Host) -> Edit:
        edit = copied(host, self.stacks, self.add, interleave)
        originals = [family[0] for family in families(edit.settled(host.model), host.model)]
        one_a_stack = {name.rpartition(".")[0]: name for name in reversed(originals)}
        for name in one_a_stack.values():  # the blocks of a stack are equal
            _check_residual(host, name)
        return edit

    def fill(self, grown: Grown, generator: torch.Generator) -> None:
        for family in families(grown.edit, grown.host.model):
            for name in family:
                block = grown.model.get_submodule(name)
                given = input_of(grown.model, block, grown.x)
                for tensor in branch_ends(block, *given.args, homogeneous=True, **given.kwargs):
                    tensor.detach().div_(len(family))
        calibrate(grown.model, (), grown.edit.blocks(), grown.x)

    def flops(self, grown: Grown) -> float:
        return 0.0
