"""Muon of all matrices of one shape at once, against torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from progtrain.optimizers.batched_muon import BatchedMuon, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def test_it_steps_as_torchs_does() -> None:
    torch.manual_seed(0)
    one = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in ((8, 8), (8, 8), (8, 24), (24, 8)))
    other = copy.deepcopy(one)
    kinds = (torch.optim.Muon, BatchedMuon)
    made = [k(n.parameters(), 0.02, 0.1) for k, n in zip(kinds, (one, other), strict=True)]
    start = [p.detach().clone() for p in one.parameters()]
    for step in range(5):
        for network, optimizer in zip((one, other), made, strict=True):
            torch.manual_seed(step)
            for index, parameter in enumerate(network.parameters()):
                parameter.grad = torch.randn_like(parameter) if (index, step) != (1, 2) else None
            optimizer.step()
    for mine, theirs, first in zip(one.parameters(), other.parameters(), start, strict=True):
        moved = (mine - first).norm()
        assert (mine - theirs).norm() < 0.01 * moved  # bfloat16 rounds by 0.004
        momenta = [m.state[p]["momentum_buffer"] for m, p in zip(made, (mine, theirs), strict=True)]
        assert torch.equal(*momenta)


@pytest.mark.parametrize("shape", [(5, 16, 8), (5, 8, 16), (1, 8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    matrix_NRC = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalised(matrix_NRC, COEFFICIENTS, 5, 1e-7).float()
    values = torch.linalg.svdvals(found)
    assert found.shape == shape and values.min() > 0.4 and values.max() < 1.3
