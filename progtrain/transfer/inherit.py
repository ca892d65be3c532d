"""Weights are inherited, new entries get the operator's values.

Equal shapes are copied, a smaller tensor goes to the leading corner of the larger one, of every
packed part (growth/inheritance.py reports it tensor by tensor). Net2Net, Chen et al.,
arXiv 1511.05641, is the operators' part of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Inherit:
    """Nothing but the weights is handed on."""

    preserves = False
    teaching = None
