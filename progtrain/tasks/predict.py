"""`task=predict`: what a stored network says of images, arrays, or the text that follows a prompt.

An input that cannot be read is named, on the terminal and in `predictions.jsonl`; the others are
predicted all the same, and the command ends with exit code 1.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from progtrain.command_line.job import printable
from progtrain.errors import ConfigError
from progtrain.growth.baked import bake
from progtrain.hardware.engine import Engine
from progtrain.inputs import Inputs
from progtrain.loading import inputs_of, network
from progtrain.record import events_of
from progtrain.report.files import strict
from progtrain.report.units import written
from progtrain.run import Json
from progtrain.settings import Prediction
from progtrain.tasks.raw import Sample, files, samples

if TYPE_CHECKING:
    from progtrain.command_line.from_checkpoint import Request

TABLE, ROWS = "predictions.csv", "predictions.jsonl"
_TOP = 5  # labels told of a sample
_SHOWN = 10  # predictions on the screen


def run(request: Request) -> int:
    """Predict, show and write; 1 where an input could not be read, else 0."""
    saved, options = request.saved, request.made("predict")
    inputs = inputs_of(saved)
    given = request.setting("input")
    if given is None or not str(given).strip():
        raise ConfigError(_needed(inputs))
    found = [] if inputs.reads_tokens else files(str(given))
    engine: Engine = request.made("hardware").open()
    model = network(saved, request.plugins, options.average, request.answers)
    bake(model, events_of(saved))
    engine.place(model)
    directory = request.claim()
    if inputs.reads_tokens:
        return _continue_text(model, inputs, str(given), options, engine, directory, request)
    said = predictions(model, inputs, samples(found, inputs), options, engine)
    return _write(said, directory)


def _needed(inputs: Inputs) -> str:
    if inputs.reads_tokens:
        return "task=predict needs a prompt: input='To be'."
    return (
        "task=predict needs input=<images or arrays>: a file, a folder or a pattern such as"
        " 'cats/*.png'."
    )


def predictions(
    model: nn.Module,
    inputs: Inputs,
    given: Iterable[Sample],
    options: Prediction,
    engine: Engine,
) -> Iterator[dict[str, Json]]:
    """A row for each sample, in their order: path, label, probability and the likeliest; or path
    and error."""
    waiting = iter(given)
    while batch := list(islice(waiting, options.batch_size)):
        readable = [sample.x for sample in batch if sample.x is not None]
        told = iter(_told(model, inputs, readable, options, engine) if readable else ())
        for sample in batch:
            if sample.x is None:
                yield {"path": sample.name, "error": sample.unreadable}
            else:
                top = next(told)
                yield {"path": sample.name, **top[0], "top": list(top)}


@torch.no_grad()
def _told(
    model: nn.Module,
    inputs: Inputs,
    raw: list[Tensor],
    options: Prediction,
    engine: Engine,
) -> Iterator[list[dict[str, Json]]]:
    """The likeliest labels of each sample, most likely first."""
    x = inputs.normalise(torch.stack(raw).to(engine.device))
    with engine.autocast():
        logits_BK: Tensor = model(x)
    if logits_BK.ndim != 2:
        raise ConfigError(
            f"The network gives {'×'.join(map(str, logits_BK.shape[1:]))} numbers for a sample;"
            " task=predict tells labels of networks that give one for each class. Use"
            " progtrain.load and call it."
        )
    probability_BK = logits_BK.double().softmax(-1)
    count = min(options.top_k or _TOP, probability_BK.shape[-1])
    value_BT, index_BT = probability_BK.topk(count)
    for values, indices in zip(value_BT.tolist(), index_BT.tolist(), strict=True):
        yield [
            {"label": inputs.label(index), "index": index, "probability": value}
            for value, index in zip(values, indices, strict=True)
        ]


def _write(said: Iterable[dict[str, Json]], directory: Path) -> int:
    """Both files, row by row, and the first of them on the screen."""
    good = bad = 0
    with ExitStack() as stack:
        rows = stack.enter_context((directory / ROWS).open("w", encoding="utf-8"))
        opened = stack.enter_context((directory / TABLE).open("w", newline="", encoding="utf-8"))
        table = csv.writer(opened)
        for row in said:
            rows.write(strict(row) + "\n")
            if "error" in row:
                bad += 1
                print(f"unreadable: {printable(_line(row))}", file=sys.stderr)
                continue
            if not good:
                table.writerow(_header(row))
            table.writerow(_cells(row))
            good += 1
            if good <= _SHOWN:
                print(f"{row['path']}: {row['label']} ({row['probability']:.1%})")
    more = f", {bad:,} unreadable (exit code 1)" if bad else ""
    print(f"{good:,} predicted{more}", *written([directory / TABLE, directory / ROWS]), sep="\n")
    return 1 if bad else 0


def _line(row: dict[str, Json]) -> str:
    return f"{row['path']}: {row['error']}"


def _header(row: dict[str, Any]) -> list[str]:
    rest = range(2, len(row["top"]) + 1)
    more = [name for place in rest for name in (f"label_{place}", f"probability_{place}")]
    return ["path", "label", "probability", *more]


def _cells(row: dict[str, Any]) -> list[Any]:
    return [row["path"], *(each[key] for each in row["top"] for key in ("label", "probability"))]


def _continue_text(
    model: nn.Module,
    inputs: Inputs,
    prompt: str,
    options: Prediction,
    engine: Engine,
    directory: Path,
    request: Request,
) -> int:
    """Print the prompt with what the network makes of it, and store both."""
    from progtrain.data.codec_bytes import Bytes
    from progtrain.generate import generate

    codec = inputs.codec or Bytes()
    tokens_T = torch.tensor(codec.encode(prompt), dtype=torch.int64, device=engine.device)
    generator = torch.Generator().manual_seed(int(request.setting("seed") or 0))
    how = (options.count, options.temperature, options.top_k, generator, inputs.shape[0])
    with engine.autocast():
        said_T = generate(model, tokens_T, *how)
    text, new = codec.decode(said_T.tolist()), said_T.tolist()[len(tokens_T) :]
    print(printable(text))
    row: dict[str, Json] = {"prompt": prompt, "text": text, "tokens": new}
    (directory / ROWS).write_text(strict(row) + "\n", encoding="utf-8")
    print("", *written([directory / ROWS]), sep="\n")
    return 0
