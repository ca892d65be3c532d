"""How raw inputs become what a network sees: the third document of a checkpoint.

`state` and `config` are enough to go on with a run; whoever only uses the network needs neither its
data nor their settings, but the shape, the normalisation, the names of the classes and the codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from progtrain.data.sets import Normalise, Sets, Tokens
from progtrain.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from progtrain.data.codec import Codec
    from progtrain.run import Json


@dataclass(frozen=True)
class Inputs:
    """What a network was trained on, without the data.

    `normalise` takes raw samples x_B... (pixels, tokens, floats) to what the network reads.
    """

    shape: tuple[int, ...]  # of one sample
    num_classes: int  # logits of one target
    normalise: Callable[[Tensor], Tensor]
    classes: tuple[str, ...] = ()  # names of the labels; empty: they have none
    codec: Codec | None = None  # text to tokens and back; None: none was stored

    @staticmethod
    def of(sets: Sets, shape: Sequence[int], num_classes: int) -> Inputs:
        """What a run with these data sees."""
        return Inputs(tuple(shape), num_classes, sets.normalise, tuple(sets.classes), sets.codec)

    @property
    def reads_tokens(self) -> bool:
        return isinstance(self.normalise, Tokens)

    def label(self, index: int) -> str:
        """The name of a class, or its number where it has none."""
        return self.classes[index] if index < len(self.classes) else str(index)

    def to_json(self) -> Json:
        return {
            "shape": list(self.shape),
            "num_classes": self.num_classes,
            "normalise": _normalise_to_json(self.normalise),
            "classes": list(self.classes),
            "codec": self.codec.to_json() if self.codec is not None else None,
        }

    @staticmethod
    def from_json(document: object) -> Inputs:
        """Raises `CheckpointError` for what is no such document, or of a newer kind."""
        try:
            told: Any = document
            return Inputs(
                tuple(int(size) for size in told["shape"]),
                int(told["num_classes"]),
                _normalise_from_json(told["normalise"]),
                tuple(str(name) for name in told["classes"]),
                _codec_from_json(told["codec"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"inputs.json of the checkpoint cannot be read ({type(error).__name__}: {error})."
            ) from error


@dataclass(frozen=True)
class Unknown:
    """Stands for a normalisation of the user's, whose code a checkpoint does not hold."""

    name: str

    def __call__(self, x: Tensor) -> Tensor:
        raise ConfigError(
            f"The data were normalised by {self.name}, which a checkpoint cannot store. Normalise"
            " the inputs yourself and call the model."
        )


def _normalise_to_json(normalise: object) -> Json:
    match normalise:
        case Normalise(scale, mean, std):
            return {"kind": "channels", "scale": scale, "mean": list(mean), "std": list(std)}
        case Tokens():
            return {"kind": "tokens"}
        case Unknown(name):
            return {"kind": "unknown", "name": name}
        case _:
            kind: Any = normalise if hasattr(normalise, "__qualname__") else type(normalise)
            return {"kind": "unknown", "name": f"{kind.__module__}.{kind.__qualname__}"}


def _normalise_from_json(told: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    match told["kind"]:
        case "channels":
            mean, std = ([float(value) for value in told[name]] for name in ("mean", "std"))
            return Normalise(float(told["scale"]), tuple(mean), tuple(std))
        case "tokens":
            return Tokens()
        case "unknown":
            return Unknown(str(told["name"]))
        case kind:
            raise ValueError(f"unknown normalisation {kind!r}")


def _codec_from_json(told: Any) -> Codec | None:
    if told is None:
        return None
    from progtrain.data.codec import from_json

    return from_json(told)
