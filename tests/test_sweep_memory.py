"""A failed job of a multirun must not hold its network while the others run."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from progtrain import cli


def test_a_failed_job_lets_go_of_its_network_before_the_next_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    networks: list[weakref.ref[torch.nn.Module]] = []
    alive: list[int] = []

    def failing(parts: object, directory: Path, held: object) -> NoReturn:
        alive.append(sum(network() is not None for network in networks))
        network = torch.nn.Linear(3, 3)
        networks.append(weakref.ref(network))
        raise RuntimeError(f"no luck with {network}")

    monkeypatch.setattr("progtrain.job.train_job", failing)
    monkeypatch.setattr("sys.argv", ["progtrain"])
    code = cli.run(["-m", "seed=0,1,2", "data=synthetic", f"hydra.sweep.dir={tmp_path / 's'}"])
    assert code == 1
    assert alive == [0, 0, 0]
    told = capsys.readouterr()
    assert "no luck" in told.out + told.err
    assert len(list((tmp_path / "s").glob("*/result.json"))) == 3
