"""Data sets: seeded splits, true sizes, useful refusals; real files where they are at hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from run_kit import config

from progtrain.command_line.fits import misfits
from progtrain.data.digits import Digits
from progtrain.data.sets import Batches, Sets, Split
from progtrain.data.synthetic import Synthetic
from progtrain.data.vision import Vision
from progtrain.errors import ConfigError, SettingError

ROOT = Path(__file__).parent.parent
UNPACK = ROOT.parent / "shared" / "tools" / "unpack_data.py"


def _vision(root: Path, **more: object) -> Vision:
    settings = {
        "dataset": torchvision.datasets.FashionMNIST,
        "name": "Fashion-MNIST",
        "root": str(root),
        "shape": [1, 28, 28],
        "num_classes": 10,
        "mean": [0.286],
        "std": [0.353],
        "download": False,
    }
    return Vision(**{**settings, **more})  # type: ignore[arg-type]


def test_the_embedded_digits_are_split_without_loss_or_overlap() -> None:
    sets = Digits().load()
    assert (len(sets.train), len(sets.validation)) == (1438, 359)
    both = torch.cat([sets.train.x, sets.validation.x]).flatten(1)
    from sklearn.datasets import load_digits

    original = torch.as_tensor(load_digits().data, dtype=torch.float32)
    assert sorted(both.tolist()) == sorted(original.tolist())


def test_the_split_depends_on_its_own_seed_and_nothing_else() -> None:
    torch.manual_seed(1)
    first = Digits().load()
    torch.manual_seed(2)
    second, other = Digits().load(), Digits(split_seed=1).load()
    assert torch.equal(first.validation.x, second.validation.x)
    assert not torch.equal(first.validation.x, other.validation.x)


def test_normalised_digits_have_mean_0_and_deviation_1() -> None:
    sets = Digits().load()
    x = sets.normalise(torch.cat([sets.train.x, sets.validation.x]))
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1) < 0.01


def test_synthetic_labels_can_be_learnt_but_not_read_off() -> None:
    sets = Synthetic(shape=(1, 8, 8), samples=2000, num_classes=3).load()
    x = torch.cat([sets.train.x, torch.ones(len(sets.train), 1, 8, 8)], 1).flatten(1)[:, :65]
    onehot = torch.nn.functional.one_hot(sets.train.y, 3).float()
    solved = torch.linalg.lstsq(x, onehot).solution
    accuracy = float(((x @ solved).argmax(1) == sets.train.y).float().mean())
    assert 0.8 < accuracy < 0.999


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5])
def test_a_validation_share_outside_0_and_1_is_refused_by_name(share: float) -> None:
    for kind in (Digits, Synthetic):
        with pytest.raises(SettingError, match="validation must be a share"):
            kind(validation=share)


def test_wrong_shape_classes_or_size_are_refused_with_the_right_value() -> None:
    sets = Digits().load()
    with pytest.raises(ConfigError, match=r"Set data.shape=\[1, 8, 8\]"):
        sets.check((3, 8, 8), 10, 64)
    with pytest.raises(ConfigError, match=r"Label 9 found .* Set data.num_classes=10"):
        sets.check((1, 8, 8), 9, 64)
    with pytest.raises(ConfigError, match=r"train\.batch_size=1438 or less"):
        sets.check((1, 8, 8), 10, 1439)
    empty = Split(sets.train.x[:0], sets.train.y[:0])
    with pytest.raises(ConfigError, match="validation split has 0 samples"):
        Sets(sets.train, empty, None, sets.normalise).check((1, 8, 8), 10, 64)


def test_a_missing_data_set_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Fashion-MNIST not found") as caught:
        _vision(tmp_path).load()
    assert str(tmp_path) in str(caught.value)
    assert "data.root" in str(caught.value)


def test_colour_images_come_channels_first(tmp_path: Path) -> None:
    class Colours:
        def __init__(self, root: Path, train: bool, download: bool) -> None:
            assert not download
            count = 20 if train else 4
            self.data = torch.arange(count * 48, dtype=torch.int64).reshape(count, 4, 4, 3) % 256
            self.data = self.data.to(torch.uint8).numpy()
            self.targets = [i % 2 for i in range(count)]
            self.classes = ["cat", "dog"]

    settings = {"shape": [3, 4, 4], "num_classes": 2, "mean": [0.5] * 3, "std": [0.5] * 3}
    sets = _vision(tmp_path, dataset=Colours, **settings).load()
    assert sets.train.x.shape == (18, 3, 4, 4)
    assert sets.classes == ("cat", "dog")
    assert sets.test is not None
    assert torch.equal(
        sets.test.x[0, 1], torch.tensor(Colours(tmp_path, False, False).data[0, ..., 1])
    )
    x, _ = Batches(sets, 0, torch.device("cpu")).at(0, 4)
    assert float(x.min()) >= -1.0001
    assert float(x.max()) <= 1.0001


def test_a_mean_of_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="mean must be 1 numbers, one a channel"):
        _vision(tmp_path, mean=[0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("model.shape=[3,8,8]", r"Samples are 1×4×4 \(data\.shape\) but model\.shape is 3×8×8"),
        ("model.num_classes=2", r"The data have 4 classes .* but model\.num_classes=2"),
    ],
)
def test_a_network_for_other_data_is_refused_before_it_starts(override: str, match: str) -> None:
    (problem,) = misfits(config(override))
    assert re.search(match, problem)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_real_images_train_and_grow_and_are_tested_at_the_end(name: str, tmp_path: Path) -> None:
    if not UNPACK.is_file():
        pytest.skip("the real data sets are not on this machine")
    data = tmp_path / "data"
    subprocess.run([sys.executable, UNPACK, data, name], check=True, capture_output=True)
    settings = f"data={name} data.root={data} data.download=false growth=schedule model.width=8"
    short = "train.duration=60steps train.evaluate_every=30steps hydra.run.dir=run"
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", *settings.split(), *short.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["growths"] == 2
    assert result["metric"] > 0.15
    assert result["test"]["test/accuracy"] > 0.15
