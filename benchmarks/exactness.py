"""How exactly every operator that promises it preserves the function, on every built-in model.

    python benchmarks/exactness.py        or        --models mlp,cnn

Operators are all options of conf/widen, conf/deepen and conf/head that say `preserves`. Each model
gets random weights, gains, shifts, statistics and scales (nothing is at its neutral
start), is grown on a probe batch, and evaluated before and after. Printed: max |Δlogit| over the
logits that were there before, in float64 and in float32, and the largest logit. The script fails
where one moves by more than 1e-12 or 1e-5. `widen.spaces=*` grows all widths at once; `*:*` the
factors inside them (heads, head sizes), at once too.
"""

from __future__ import annotations

import argparse
import copy
import importlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from progtrain.errors import GrowthError
from progtrain.growth.grow import Host, grow
from progtrain.growth.newborn import evaluate
from progtrain.models.cnn import CNN
from progtrain.models.gpt import GPT
from progtrain.models.mlp import MLP
from progtrain.models.resnet import ResNet
from progtrain.models.vit import ViT
from progtrain.run import Probe

CONF = Path(__file__).parent.parent / "conf"
TARGET = {torch.float64: 1e-12, torch.float32: 1e-5}
CLASSES, IMAGE, TOKENS = 7, (1, 8, 8), (12,)
TEXT = {"shape": TOKENS, "num_classes": 11, "width": 16, "depth": 2}
PICTURE = {"shape": IMAGE, "num_classes": CLASSES, "width": 8, "depth": 2}
MODELS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "mlp": (MLP, {**PICTURE, "norm": "none"}),
    "mlp, batch norm": (MLP, {**PICTURE, "norm": "batch"}),
    "mlp, layer norm": (MLP, {**PICTURE, "norm": "layer"}),
    "cnn": (CNN, PICTURE),
    "resnet": (ResNet, PICTURE),
    "vit": (ViT, {**PICTURE, "width": 16}),
    "gpt": (GPT, TEXT),
    "gpt, layer norm, learned positions": (GPT, {**TEXT, "norm": "layer", "positions": "learned"}),
    "gpt, tied": (GPT, {**TEXT, "tied": True}),
    "gpt, tied, layer norm": (GPT, {**TEXT, "tied": True, "norm": "layer"}),
    "gpt, two of four kv heads, swiglu": (GPT, {**TEXT, "kv_heads": 2, "mlp": "swiglu"}),
}


def operators() -> dict[str, Any]:
    """Every option of `widen`, `deepen` and `head` that preserves, as its YAML says."""
    found: dict[str, Any] = {}
    for path in sorted(p for g in ("widen", "deepen", "head") for p in CONF.glob(f"{g}/*.yaml")):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        module, _, name = config.pop("_target_").rpartition(".")
        operator = getattr(importlib.import_module(module), name)(**config)
        if operator.preserves:
            found[f"{path.parent.name}={path.stem}"] = operator
            if any(field.name == "spaces" for field in fields(operator)):
                inner = replace(operator, spaces="*:*")
                found[f"{path.parent.name}={path.stem} spaces=*:*"] = inner
    return found


def a_host(name: str, dtype: torch.dtype) -> Host:
    """A model with nothing at its neutral start, and a probe batch."""
    torch.manual_seed(0)
    kind, settings = MODELS[name]
    model = kind(**settings).to(dtype).eval()
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            noise = 0.1 * torch.randn(tensor.shape, dtype=torch.float64).to(dtype)
            tensor.data.add_(noise.abs() if key.endswith("var") else noise)
    tokens = kind is GPT
    shape = (4, *(TOKENS if tokens else IMAGE))
    x = torch.randint(11, shape) if tokens else torch.randn(shape, dtype=torch.float64).to(dtype)
    y = torch.randint(7, shape if tokens else (4,))
    return Host(model, Probe(x, y))


def error(name: str, operator: Any, dtype: torch.dtype) -> tuple[float, float] | str:
    """max |Δlogit| and the largest logit, or why the operator does not fit the model."""
    host = a_host(name, dtype)
    before: Tensor = evaluate(copy.deepcopy(host.model), host.probe.x)
    try:
        grown = grow(host, operator, 1)
    except GrowthError as reason:
        return str(reason)
    if grown.edit.inexact:
        return grown.edit.inexact
    after = evaluate(grown.model, host.probe.x)
    kept = after[..., : before.shape[-1]]
    return float((kept - before).abs().max()), float(before.abs().max())


def row(name: str, operator: Any, worst: dict[torch.dtype, float]) -> str:
    """A line of the table; `worst` learns of it. Empty where the model has nothing of the kind."""
    double, single = (error(name, operator, dtype) for dtype in TARGET)
    if isinstance(double, str) or isinstance(single, str):
        return "" if "no space" in str(double) else f"| – | – | {str(double).split('. ')[0]} |"
    for dtype, found in zip(TARGET, (double, single), strict=True):
        worst[dtype] = max(worst[dtype], found[0])
    return f"| {double[0]:.1e} | {single[0]:.1e} | {double[1]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="", help="kinds, separated by commas; else all")
    kinds = parser.parse_args().models.split(",")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}\n")
    print("| operator | model | float64 | float32 | largest logit |\n|---|---|---|---|---|")
    worst = dict.fromkeys(TARGET, 0.0)
    for word, operator in operators().items():
        for name in MODELS:
            wanted = kinds == [""] or name.partition(",")[0] in kinds
            cells = row(name, operator, worst) if wanted else ""
            if cells:
                print(f"| `{word}` | {name} {cells}", flush=True)
    figures = [f"{value:.1e} in {dtype}" for dtype, value in worst.items()]
    print(f"\nworst: {', '.join(figures)}")
    if any(worst[dtype] > limit for dtype, limit in TARGET.items()):
        raise SystemExit("more than 1e-12 in float64 or 1e-5 in float32")


if __name__ == "__main__":
    main()
