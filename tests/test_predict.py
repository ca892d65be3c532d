"""`task=predict`: labels of images and arrays, and text that goes on."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from run_kit import parts, train
from torch import Tensor

import progtrain
from progtrain import cli
from progtrain.data.sets import Normalise
from progtrain.errors import ConfigError
from progtrain.inputs import Inputs
from progtrain.tasks.raw import files, samples

DIGITS = ("data=digits", "model=cnn", "model.width=4", "growth=schedule")
GPT = ("data=text", "data.length=8", "data.bytes=2000", "model=gpt", "model.width=8",
       "model.heads=2", "model.depth=2", "growth=schedule", "train.ema=0.5")  # fmt: skip
Command = Callable[..., int]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("digits")
    train(parts(*DIGITS), place)
    return place


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text")
    train(parts(*GPT), place)
    return place


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["progtrain"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda *argv: cli.run([*argv, "hydra.run.dir=out", "hardware=cpu"])


def rows() -> list[Any]:
    return [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]


def image(path: Path, size: tuple[int, int], mode: str = "L", seed: int = 0) -> Path:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def said(run: Path, raw: Tensor) -> Tensor:
    """Probabilities (batch, classes) as somebody would compute them by `load`."""
    model, inputs = progtrain.load(run), progtrain.read_inputs(run)
    with torch.no_grad():
        return model(inputs.normalise(raw)).double().softmax(-1)


def test_a_folder_of_images_becomes_a_table_of_labels(
    digits: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        image(tmp_path / "in" / f"{number}.png", (8, 8), seed=number)
    image(tmp_path / "in" / "deep" / "colour.jpg", (30, 20), "RGB")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    image(tmp_path / "in" / ".hidden" / "x.png", (8, 8))
    assert command("task=predict", f"checkpoint={digits}", "input=in", "predict.batch_size=3") == 0
    table = list(csv.DictReader(Path("out/predictions.csv").read_text().splitlines()))
    names = ["0.png", "1.png", "2.png", "deep/colour.jpg"]
    assert [row["path"] for row in table] == [f"in/{name}" for name in names]
    pixels = np.array(Image.open("in/1.png"), dtype=np.float32)
    top = said(digits, torch.from_numpy(pixels * (16 / 255))[None, None])[0].topk(5)
    assert [int(table[1][f"label_{i}"]) for i in range(2, 6)] == top.indices.tolist()[1:]
    assert int(table[1]["label"]) == int(top.indices[0])
    assert float(table[1]["probability"]) == pytest.approx(float(top.values[0]), rel=1e-6)
    assert [row["label"] for row in rows()] == [row["label"] for row in table]
    assert [each["index"] for each in rows()[1]["top"]] == top.indices.tolist()
    assert f"in/1.png: {table[1]['label']} (" in capsys.readouterr().out


def test_what_cannot_be_read_is_named_and_the_rest_predicted(
    digits: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = image(tmp_path / "in" / "good.png", (8, 8))
    (tmp_path / "in" / "cut.png").write_bytes(good.read_bytes()[:60])
    (tmp_path / "in" / "empty.png").touch()
    np.save(tmp_path / "in" / "wrong.npy", np.zeros((2, 3, 8, 8), np.float32))
    np.save(tmp_path / "in" / "code.npy", np.array([print], object), allow_pickle=True)
    assert command("task=predict", f"checkpoint={digits}", "input=in", "predict.top_k=2") == 1
    told, output = capsys.readouterr().err, rows()
    assert [row["path"] for row in output if "error" not in row] == ["in/good.png"]
    assert len(output) == 5
    assert [len(row["top"]) for row in output if "error" not in row] == [2]
    for name in ("cut.png", "empty.png", "wrong.npy", "code.npy"):
        assert f"unreadable: in/{name}: " in told
    assert "its shape is 2×3×8×8; the network reads 1×8×8" in told


def test_arrays_hold_one_sample_or_many(digits: Path, command: Command, tmp_path: Path) -> None:
    x = torch.rand(3, 1, 8, 8) * 16
    np.save("many.npy", x.numpy())
    np.save("one.npy", x[1].numpy())
    safetensors.torch.save_file({"x": x, "y": torch.zeros(3)}, "held.safetensors")
    assert command("task=predict", f"checkpoint={digits}", "input=*.*") == 0
    best = said(digits, x).max(1)
    for row in rows():
        index = int(row["path"].partition("[")[2].rstrip("]") or 1)
        assert row["index"] == int(best.indices[index])
        assert row["probability"] == pytest.approx(float(best.values[index]), rel=1e-6)
    assert [row["path"] for row in rows()].count("one.npy") == 1 and len(rows()) == 7


def test_images_of_every_kind_become_the_networks_shape(tmp_path: Path) -> None:
    colour = Inputs((3, 8, 8), 2, Normalise(255.0, (0.0,) * 3, (1.0,) * 3), ("cat", "dog"))
    grey = Inputs((1, 8, 8), 2, Normalise(1.0, (0.0,), (1.0,)))
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30, 1] = 200  # the middle; the margins are cut
    Image.fromarray(wide).save(tmp_path / "wide.png")
    turned = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8)[:, None] * 30, 8, 1))
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    deep = np.full((8, 8), 51_200, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image(tmp_path / "alpha.png", (9, 7), "RGBA")
    Image.fromarray(wide).quantize(4).save(tmp_path / "palette.png")
    found = {Path(s.name).stem: s for s in samples(files(str(tmp_path)), colour)}
    assert all(s.x is not None and s.x.shape == (3, 8, 8) for s in found.values())
    assert found["wide"].x is not None and found["wide"].x.dtype == torch.uint8
    assert bool((found["wide"].x[1, :, 1:7] == 200).all()) and not bool(found["wide"].x[0].any())
    assert found["turned"].x is not None
    assert found["turned"].x[0, :, 0].tolist() == [30 * i for i in reversed(range(8))]
    told = {Path(s.name).stem: s for s in samples(files(str(tmp_path)), grey)}
    assert told["deep"].x is not None
    torch.testing.assert_close(told["deep"].x, torch.full((1, 8, 8), 200 / 255))
    assert colour.label(1) == "dog" and grey.label(1) == "1"


def test_a_prompt_goes_on(text: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = ("task=predict", f"checkpoint={text}", "input='import os'")

    def go_on(*more: str) -> Any:
        assert command(*prompt, "predict.count=12", *more) == 0
        return rows()[0]

    first = go_on()
    assert first["prompt"] == "import os" and first["text"].startswith("import os")
    assert len(first["tokens"]) == 12
    assert "import os" in capsys.readouterr().out
    assert go_on() == first and go_on("seed=5") != first
    likeliest = go_on("predict.temperature=0")
    assert likeliest == go_on("predict.temperature=0", "seed=5") == go_on("predict.top_k=1")
    model: Any = progtrain.load(text)
    tokens = torch.tensor(list(b"import os"))[-8:]
    assert likeliest["tokens"][0] == int(model(tokens[None])[0, -1].argmax())


def test_the_average_predicts_where_it_is_asked_for(text: Path, command: Command) -> None:
    assert command("task=predict", f"checkpoint={text}", "input=a", "predict.average=true",
                   "predict.temperature=0", "predict.count=1") == 0  # fmt: skip
    model: Any = progtrain.load(text, average=True)
    assert rows()[0]["tokens"] == [int(model(torch.tensor([[97]]))[0, -1].argmax())]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "task=predict needs input=<images or arrays>"),
        (("input=nowhere",), "Nothing found at input=nowhere"),
        (("input=empty",), "is a folder without images or arrays"),
        (("input=x.png", "predict.top_k=0"), "predict.top_k must be a whole number >= 1"),
        (("input=x.png", "predict.batch_size=0"), "predict.batch_size must be"),
        (("input=x.png", "predict.temperature=-1"), "predict.temperature must be"),
        (("input=x.png", "predict.average=true"), "no average of the weights"),
        (("input=x.png", "predict.cuont=3"), "Did you mean 'predict.count'?"),
        (("input=x.png", "data=digits"), "data cannot be changed: task=predict"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(
    more: tuple[str, ...],
    told: str,
    digits: Path,
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    image(tmp_path / "x.png", (8, 8))
    code = command("task=predict", f"checkpoint={digits}", *more)
    assert code == (4 if "average" in told else 2) and told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_network_that_reads_no_images_says_so(tmp_path: Path) -> None:
    rows_of_numbers = Inputs((5,), 2, Normalise(1.0, (0.0,), (1.0,)))
    image(tmp_path / "x.png", (8, 8))
    with pytest.raises(ConfigError, match=r"reads samples of 5; images have 1 or 3 channels"):
        list(samples(files(str(tmp_path)), rows_of_numbers))
