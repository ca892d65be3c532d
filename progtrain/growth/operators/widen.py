"""What all widening operators share: which spaces grow, by how much, and with which parts."""

from __future__ import annotations

from progtrain.errors import GrowthError, did_you_mean, require
from progtrain.growth.edits import Edit, WidenSpace, matching
from progtrain.growth.grow import Host
from progtrain.growth.spaces import Space, spaces


def check_widen(factor: float, unevenness: float = 0.0) -> None:
    require(1 < factor <= 64, "factor", factor, "in (1, 64]", "Growth never shrinks a network.")
    require(0 <= unevenness < 1, "unevenness", unevenness, "in [0, 1)")


def growable(host: Host, pattern: str) -> list[Space]:
    """Spaces of the host that match and can grow; `GrowthError` with the reasons if none does."""
    found = spaces(host.model, host.probe.x)
    names = matching([space.name for space in found], pattern)
    chosen = [space for space in found if space.name in names and not space.fixed]
    if chosen:
        return chosen
    able = [space.name for space in found if not space.fixed]
    if names:
        reasons = "; ".join(f"{s.name}: {s.fixed}" for s in found if s.name in names)
        raise GrowthError(f"widen.spaces={pattern} names nothing that can grow ({reasons}).")
    raise GrowthError(
        f"widen.spaces={pattern} matches no space of the model.{did_you_mean(pattern, able)}"
        f" Spaces: {', '.join(able) or 'none can grow'}."
    )


def grown_size(size: int, factor: float) -> int:
    """At least one unit more."""
    return max(size + 1, round(size * factor))


def padded(host: Host, pattern: str, factor: float) -> Edit:
    """Every matching space grows; layer norms over it are kept by mean-padding."""
    return Edit(
        tuple(
            WidenSpace(
                space.name,
                space.size,
                grown_size(space.size, factor),
                space.parts,
                rescaled_norms=() if space.inexact else space.layer_norms,
                inexact=space.inexact,
            )
            for space in growable(host, pattern)
        )
    )
