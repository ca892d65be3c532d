"""Random numbers of training samples: a pure function of (seed, place in the sample stream).

So they depend neither on how a batch is cut, nor on who reads it, nor on where a run was resumed.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from progtrain.data.sets import mixed


@dataclass(frozen=True)
class Draws:
    """Of the `size` samples that follow `position` in the stream of training samples."""

    seed: int
    position: int
    size: int

    def named(self, name: str) -> Draws:
        """Other numbers for the same samples, that share nothing with those of another name."""
        return replace(self, seed=mixed(self.seed, zlib.crc32(name.encode())))

    def uniform(self, count: int) -> Tensor:
        """(size, count), each in [0, 1), float64 on the CPU; a row is that of its sample alone."""
        places_B = np.arange(self.position, self.position + self.size, dtype=np.uint64)
        index_BC = places_B[:, None] * np.uint64(count) + np.arange(count, dtype=np.uint64)
        bits_BC: Any = _splitmix(index_BC, mixed(self.seed, count))
        return torch.from_numpy((bits_BC >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def batch_seed(self) -> int:
        """One seed for the whole batch."""
        return mixed(self.seed, self.position)


def _splitmix(index: Any, seed: int) -> Any:
    """64 random bits for each index (splitmix64)."""
    golden, first, second = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
    with np.errstate(over="ignore"):
        z = (index + np.uint64(1)) * np.uint64(golden) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(first)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(second)
        return z ^ (z >> np.uint64(31))


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Torch's random numbers on the CPU as `seed` gives them; afterwards as if nothing had been.

    For code that takes no generator. The numbers of a device are left alone.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
