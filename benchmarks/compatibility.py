"""Which warmup and which transfer fit which operator: docs/compatibility.md, written by trying.

    python benchmarks/compatibility.py            or        --write

Every option of widen, deepen, insert and head is grown once on a small network that it suits, with
every option of warmup and of transfer, by the same function that a run calls. What that refuses is
refused at the start of a run, with the reason that stands below the tables.
"""

from __future__ import annotations

import argparse
import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from torch import nn

from progtrain.errors import ProgtrainError
from progtrain.growth.gates import blends
from progtrain.growth.grow import Host
from progtrain.growth.transaction import construct, keeps
from progtrain.models.cnn import CNN
from progtrain.models.gpt import GPT
from progtrain.models.mlp import MLP
from progtrain.models.resnet import ResNet
from progtrain.run import Probe, Stage
from progtrain.settings import Training

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
GROUPS = ("widen", "deepen", "insert", "head")
# where an option has a setting that makes another pair of it
VARIANTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "warmup": [("linear_ramp, isolated", {"isolated": True})]
    + [(f"{name}, loud", {"zero_output": False}) for name in ("lr", "frozen_host")],
    "head": [(f"{name}, fresh", {"fresh": True}) for name in ("second", "stage")],
}
QUICK = {"steps": 1, "candidates": 1, "iterations": 1}  # of operators that look for values
INTRO = """# What fits what

Which warmup and which transfer can follow which operator. Written by
`python benchmarks/compatibility.py --write`, which tries every pair; a test holds the page to the
code. A run refuses what is refused here before its clock starts.

* **exact**: the operator itself keeps the function.
* **silent**: the warmup (or transfer=preserve) lets what is new begin with no effect.
* **moves**: nothing keeps the function at the growth.
* *no effect* behind a word: this warmup finds nothing in what the operator adds, and a run says so.
* **no** and a number: refused, for the reason with that number.

`isolated` and `loud` are settings: `warmup.isolated=true`, `warmup.zero_output=false`; `fresh` is
`head.fresh=true`. transfer=distill and transfer=progressive change the loss and nothing at the
growth, so they fit wherever transfer=inherit does.
"""


@dataclass(frozen=True)
class Pair:
    """What came of one operator with one warmup and one transfer."""

    word: str  # exact, silent, moves, or no
    reason: str = ""
    idle: bool = False  # the warmup finds nothing to do

    def cell(self, reasons: list[str]) -> str:
        if self.reason and self.reason not in reasons:
            reasons.append(self.reason)
        if self.reason:
            return f"no {reasons.index(self.reason) + 1}"
        return self.word + (", *no effect*" if self.idle else "")


def option(group: str, name: str) -> Any:
    """An option as its YAML says, or a variant of it, such as `lr, loud`."""
    config = yaml.safe_load((ROOT / "conf" / group / f"{plain(name)}.yaml").read_text())
    config |= dict(VARIANTS.get(group, [])).get(name, {})
    config |= {key: value for key, value in QUICK.items() if key in config}
    module, _, kind = config.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), kind)(**config)


def plain(name: str) -> str:
    return name.partition(",")[0]


def names(group: str) -> list[str]:
    found = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
    return [
        each
        for n in found
        for each in (n, *(v for v, _ in VARIANTS.get(group, []) if plain(v) == n))
    ]


@cache
def host(group: str) -> Host:
    """A small network that every operator of a group suits, and a batch for it."""
    torch.manual_seed(0)
    sizes: Any = {"shape": (1, 8, 8), "num_classes": 3, "width": 8, "depth": 2}
    models: dict[str, nn.Module] = {
        "widen": MLP(**sizes, norm="batch"),
        "deepen": ResNet(**sizes, stages=1),
        "insert": CNN(**sizes, stages=1),
        "head": MLP(**sizes, norm="batch"),
        "stream": GPT((6,), 11, 8, 1, 2),
    }
    x = torch.randint(11, (4, 6)) if group == "stream" else torch.randn(4, 1, 8, 8)
    y = torch.randint(3, (4, 6) if group == "stream" else (4,))
    return Host(models[group], Probe(x, y))


def attempt(group: str, operator: str, warmup: str, transfer: str) -> Pair:
    """Grow the group's network; what comes of it."""
    made = option("widen" if group == "stream" else group, operator)
    setup: Any = SimpleNamespace(
        warmup=option("warmup", warmup), transfer=option("transfer", transfer), train=Training()
    )
    try:
        grown = construct(host(group), Stage(operator, made), setup, 0)
    except ProgtrainError as error:
        return Pair("no", general(str(error)))
    kept = keeps(made, setup, grown.edit)
    word = "exact" if kept and made.preserves else "silent" if kept else "moves"
    return Pair(word, idle=setup.warmup.blends and not blends(grown.edit))


def general(reason: str) -> str:
    """The reason with no class and no stage in it, so that equal reasons are one."""
    reason = re.sub(r"^warmup \(\w+\)", "The warmup", reason)
    reason = re.sub(r"\b(Widen|Deepen)[A-Z]\w+", "the operator", reason)
    return re.sub(r"stage '[^']*'", "a stage", reason)


def table(group: str, transfer: str, reasons: list[str]) -> list[str]:
    """One row an operator; warmups that fare alike with all of them share a column."""
    told = "widen" if group == "stream" else group
    rows = names(told)
    columns: dict[tuple[str, ...], list[str]] = {}
    for warmup in names("warmup"):
        cells = [attempt(group, operator, warmup, transfer).cell(reasons) for operator in rows]
        columns.setdefault(tuple(cells), []).append(f"`{warmup}`")
    head = [f"transfer={transfer}", *("<br>".join(warmups) for warmups in columns.values())]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, operator in enumerate(rows):
        cells = [column[row] for column in columns]
        lines.append("| " + " | ".join([f"`{told}={operator}`", *cells]) + " |")
    return lines


def page() -> str:
    reasons: list[str] = []
    lines = [INTRO]
    titles = {"stream": "Widen a residual stream under a norm (gpt)"}
    for group in (*GROUPS, "stream"):
        lines += [f"## {titles.get(group, group.capitalize())}", ""]
        for transfer in ("inherit", "preserve"):
            lines += [*table(group, transfer, reasons), ""]
    lines += ["## Reasons", ""]
    lines += [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    text = page()
    if parser.parse_args().write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
