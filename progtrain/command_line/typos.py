"""Finds what a user may have meant, by the full name that he would have to type."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known setting nearest to `word`: `optimizer.lr` for `lr` as well as for `optim.lr`."""
    names = list(dict.fromkeys(known))
    parent, _, leaf = word.rpartition(".")
    split = [(*name.rpartition(".")[::2], name) for name in names]
    siblings = {last: name for first, last, name in split if first == parent}
    close = get_close_matches(leaf, siblings, 1, cutoff=0.6)
    if close:
        return siblings[close[0]]
    leaves: dict[str, str] = {}
    for _, last, name in split:
        leaves.setdefault(last, name)
    if leaf in leaves and not parent:
        return leaves[leaf]
    close = get_close_matches(word, names, 1, cutoff=0.6)
    if close:
        return close[0]
    close = get_close_matches(leaf, leaves, 1, cutoff=0.7)
    return leaves[close[0]] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known name is near."""
    name = meant(word, known)
    return f" Did you mean {name!r}?" if name else ""
