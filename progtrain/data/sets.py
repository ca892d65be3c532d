"""Data in memory, and batches as a pure function of (seed, position).

Position counts training samples since the start of the run. The sample stream is one permutation
an epoch after another, so resuming needs no reader's state and a batch may span two epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from progtrain.errors import ConfigError

if TYPE_CHECKING:
    from progtrain.contracts import Augment
    from progtrain.data.codec import Codec
    from progtrain.data.draws import Draws


# of each sample its index, and a seed of what is random in it (None: as evaluation sees it)
Wanted = list[tuple[int, int | None]]


class Reader(Protocol):
    """Reads samples that are not in memory."""

    pinned: bool  # whether batches come in memory that a GPU reads by itself

    def read(self, wanted: Wanted, ahead: Iterable[Wanted] = ()) -> Tensor:
        """A batch of raw samples; `ahead` is what will probably be wanted after it."""
        ...


@dataclass(frozen=True)
class Split:
    """Samples x_N... (raw: uint8 images or tokens, or floats) and targets of whole numbers.

    y_N has one target a sample, y_NT one a position; either may be of any integer type. Where a
    `reader` reads the samples, x is on the meta device: a shape and a type, no values.
    """

    x: Tensor
    y: Tensor
    source: Tensor | None = None  # (N,): place of each sample in the data set as it was read
    reader: Reader | None = None  # of samples that are not in memory

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Split:
        x = self.x if self.reader else self.x.to(device)
        return replace(self, x=x, y=self.y.to(device))

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.y.nbytes + (0 if self.reader else self.x.nbytes)

    def held(self, what: str) -> Tensor:
        """All samples at once; raises `ConfigError` where they are not in memory."""
        if self.reader is not None:
            raise ConfigError(
                f"{what} looks at all training samples at once, and this data set is read while it"
                " trains. Use curriculum/score=loss, or hold it in memory: data.cache=true"
                " data.crop=centre data.flip=0."
            )
        return self.x


@dataclass(frozen=True)
class Normalise:
    """(x / scale − mean) / std by channel, as float32."""

    scale: float
    mean: tuple[float, ...]  # of each channel, after scaling
    std: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        factor, shift = _affine(self, x.ndim, x.device)
        return torch.addcmul(shift, x.float(), factor)


@dataclass(frozen=True)
class Tokens:
    """Indices of tokens as they are, as int64."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.long()


@lru_cache(maxsize=64)
def _affine(normalise: Normalise, ndim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and shift, (1, channels, 1, …), so that a batch costs one operation."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (normalise.mean, normalise.std))
    shape = (1, -1, *[1] * (ndim - 2))
    factor, shift = 1 / (normalise.scale * std), -mean / std
    return factor.float().reshape(shape).to(device), shift.float().reshape(shape).to(device)


@dataclass(frozen=True)
class Sets:
    """A loaded data set."""

    train: Split
    validation: Split
    test: Split | None
    normalise: Callable[[Tensor], Tensor]  # what a batch goes through on the device
    # by name: a number of each training sample (N,), such as how hard it is
    columns: Mapping[str, Tensor] = field(default_factory=lambda: dict[str, Tensor]())
    classes: tuple[str, ...] = ()  # what the labels are called, where that is known
    codec: Codec | None = None  # text to tokens and back, where samples are text
    # UTF-8 bytes behind the targets of the validation split, for one target
    bytes_per_target: float | None = None
    fingerprint: str | None = None  # of the training split; None: of all its samples
    notes: tuple[str, ...] = ()  # what a user should know about these data

    def check(self, shape: tuple[int, ...], num_classes: int, batch_size: int) -> None:
        """Raise `ConfigError` where the data are not what the settings say."""
        for name in ("train", "validation"):
            split: Split = getattr(self, name)
            if not len(split):
                raise ConfigError(f"The {name} split has 0 samples. Change data.validation.")
        got = tuple(self.train.x.shape[1:])
        if got != tuple(shape):
            raise ConfigError(
                f"Samples are {'×'.join(map(str, got))} but data.shape says"
                f" {'×'.join(map(str, shape))}. Set data.shape={list(got)}."
            )
        if self.codec is None:  # tokens of a codec are below its size, which `load` has checked
            self._check_labels(num_classes)
        if len(self.train) < batch_size:
            raise ConfigError(
                f"train.batch_size={batch_size} is more than the {len(self.train)} training"
                f" samples. Use train.batch_size={len(self.train)} or less."
            )

    def _check_labels(self, num_classes: int) -> None:
        top = int(self.train.y.max())
        if top >= num_classes:
            sample = int(self.train.y.argmax()) // (self.train.y.numel() // len(self.train))
            raise ConfigError(
                f"Label {top} found (sample {sample}); data.num_classes={num_classes} allows 0 to"
                f" {num_classes - 1}. Set data.num_classes={top + 1}."
            )


_NONE: Mapping[str, Augment] = {}


@dataclass
class Batches:
    """Training batches of a set; `order` only remembers permutations it can make again."""

    sets: Sets
    seed: int
    device: torch.device
    _order: dict[int, Tensor] = field(default_factory=lambda: dict[int, Tensor]())

    def at(self, position: int, size: int) -> tuple[Tensor, Tensor]:
        """The `size` samples that follow `position`, normalised, and their int64 targets."""
        return self.taken(self.indices(position, size))

    def __post_init__(self) -> None:
        for split in (self.sets.train, self.sets.validation, self.sets.test):
            if split is not None and split.reader is not None:
                split.reader.pinned = self.device.type == "cuda"

    def taken(
        self,
        index: Tensor,
        draws: Draws | None = None,
        augments: Mapping[str, Augment] = _NONE,
        ahead: Iterable[tuple[Tensor, Draws]] = (),
    ) -> tuple[Tensor, Tensor]:
        """Training samples by index, normalised, and their int64 targets.

        With `draws`, those of their places in the stream, they are varied by every augmentation in
        turn: those of raw pixels come before those of normalised ones. `ahead` is what will be
        taken next.
        """
        train = self.sets.train
        index = index.to(train.y.device)
        if train.reader is None:
            x = train.x[index]
        else:
            x = train.reader.read(wanted(index, draws), (wanted(*each) for each in ahead))
        return self._ready(x, train.y[index], draws, augments)

    def _ready(
        self,
        x: Tensor,
        y: Tensor,
        draws: Draws | None = None,
        augments: Mapping[str, Augment] = _NONE,
    ) -> tuple[Tensor, Tensor]:
        x = x.to(self.device, non_blocking=x.is_pinned())
        y = y.to(self.device).long()
        for normalised in (False, True):
            x = self.sets.normalise(x) if normalised else x
            for name, augment in augments.items() if draws is not None else ():
                if augment.normalised is normalised:
                    x = augment(x, draws.named(name))
        return x, y

    def indices(self, position: int, size: int) -> Tensor:
        """Indices into the training split, on the CPU."""
        count, parts = len(self.sets.train), list[Tensor]()
        while size > 0:
            epoch, offset = divmod(position, count)
            part = self._permutation(epoch)[offset : offset + size]
            parts.append(part)
            position, size = position + len(part), size - len(part)
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._order:
            generator = torch.Generator().manual_seed(mixed(self.seed, epoch))
            order = torch.randperm(len(self.sets.train), generator=generator)
            last = list(self._order.items())[-1:]  # what is read ahead may be an epoch further
            self._order = {**dict(last), epoch: order}
        return self._order[epoch]

    def every(
        self, split: Split, size: int, share: Callable[[int], slice] = slice
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples of a split once, in order; the last batch may be smaller.

        `share` says which of so many samples of a batch are wanted: by default all.
        """
        parts: list[range] = []
        for start in range(0, len(split), size):
            whole = range(start, min(start + size, len(split)))
            parts.append(whole[share(len(whole))])
        reads: list[Wanted] = [[(i, None) for i in p] for p in parts] if split.reader else []
        for number, part in enumerate(parts):
            if split.reader is None:
                x = split.x[part.start : part.stop]
            else:
                x = split.reader.read(reads[number], reads[number + 1 :])
            yield self._ready(x, split.y[part.start : part.stop])


def wanted(index: Tensor, draws: Draws | None) -> Wanted:
    """What a reader is asked for."""
    seeds = [None] * len(index) if draws is None else draws.named("read").seeds()
    return list(zip(index.tolist(), seeds, strict=True))


def mixed(seed: int, index: int) -> int:
    """One seed for each pair; neighbours share nothing (splitmix64)."""
    z = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) % 2**63


def split_off(x: Tensor, y: Tensor, share: float, seed: int) -> tuple[Split, Split]:
    """A seeded split into (rest, share)."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(mixed(seed, 0)))
    cut = len(y) - round(len(y) * share)
    rest, shared = order[:cut], order[cut:]
    return Split(x[rest], y[rest], rest), Split(x[shared], y[shared], shared)
