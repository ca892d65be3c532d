"""What all widening operators share: which spaces grow, by how much, and with which parts."""

from __future__ import annotations

from dataclasses import replace

from progtrain.errors import GrowthError, did_you_mean, require
from progtrain.growth.edits import Edit
from progtrain.growth.follow import DemandError, Sizes
from progtrain.growth.grow import Host
from progtrain.growth.spaces import Space, Spaces
from progtrain.growth.tensors import matching
from progtrain.growth.widen_space import Resize, WidenSpace


def check_widen(factor: float, size: int | None = None, unevenness: float = 0.0) -> None:
    require(1 < factor <= 64, "factor", factor, "in (1, 64]", "Growth never shrinks a network.")
    require(size is None or size > 1, "size", size, "a whole number > 1, or null for the factor")
    require(0 <= unevenness < 1, "unevenness", unevenness, "in [0, 1)")


def growable(found: list[Space], pattern: str) -> list[Space]:
    """Spaces that match and can grow; `GrowthError` with the reasons if none does.

    Factors inside another width (head size, channels of a group) are meant only by patterns with a
    colon, as their names have one.
    """
    named = matching([space.name for space in found], pattern)
    chosen = [s for s in found if s.name in named and (not s.inner or ":" in pattern)]
    able = [space for space in chosen if not space.fixed]
    if able:
        return able
    names = [space.name for space in found if not space.fixed]
    if chosen:
        reasons = "; ".join(f"{space.name}: {space.fixed}" for space in chosen)
        raise GrowthError(f"widen.spaces={pattern} names nothing that can grow ({reasons}).")
    raise GrowthError(
        f"widen.spaces={pattern} matches no space of the model.{did_you_mean(pattern, names)}"
        f" Spaces: {', '.join(names) or 'none can grow'}."
    )


def grown_size(space: Space, factor: float, size: int | None) -> int:
    """Units afterwards: `size`, or `factor` × rounded to a step that the code allows."""
    if size is None:
        more = max(1, round(space.size * (factor - 1) / space.step))
        return space.size + more * space.step
    if size <= space.size:
        raise GrowthError(
            f"widen.size={size} is not larger than the {space.size} units of {space.name}. Growth"
            " never shrinks a network."
        )
    if (size - space.size) % space.step:
        near = size - (size - space.size) % space.step
        allowed = " or ".join(str(n) for n in (near, near + space.step) if n > space.size)
        raise GrowthError(
            f"widen.size={size} does not fit {space.name}: it has {space.size} units and grows by"
            f" multiples of {space.step} (its code divides it into heads or groups). Use {allowed}."
        )
    return size


def widenings(
    host: Host, pattern: str, factor: float, size: int | None
) -> list[tuple[Space, WidenSpace]]:
    """Every matching space at its new size, with what its code makes grow with it."""
    every = Spaces.of(host.model, host.probe.x)
    sizes = Sizes()
    for space in growable(every.found, pattern):
        if space.node in sizes.nodes:
            continue  # it has followed another one
        wanted = {**sizes.nodes, space.node: grown_size(space, factor, size)}
        try:
            sizes = every.sizes(wanted)
        except DemandError as error:
            raise GrowthError(
                f"{space.name} cannot grow from {space.size} to {wanted[space.node]}: {error}."
            ) from error
    by_name = {space.name: space for space in every.found}
    return [(by_name[change.space], change) for change in every.changes(sizes)]


def padded(host: Host, pattern: str, factor: float, size: int | None) -> Edit:
    """Every matching space grows; norms over it are kept by padding."""
    return Edit(tuple(pad(s, c) for s, c in widenings(host, pattern, factor, size)))


def pad(space: Space, change: WidenSpace) -> WidenSpace:
    """The change with norms rescaled, so that they do not see new units."""
    if not space.norms or space.inexact:
        return replace(change, inexact=space.inexact)
    eps = {norm.module: norm.eps for norm in space.norms}
    resizes = tuple(
        Resize(gain.rpartition(".")[0], "eps", -1, value, value * change.old / change.new)
        for gain, value in eps.items()
        if value is not None
    )
    return replace(
        change,
        norm=space.norms[0].kind,
        rescaled_norms=tuple(eps),
        resizes=(*change.resizes, *resizes),
    )
