"""A command composes much out of few files: each is read once, and jobs do not see each other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.sources_registry import SourcesRegistry

from progtrain.command_line.argv import read
from progtrain.command_line.session import opened
from progtrain.errors import ConfigError


def test_each_file_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Counter[str] = Counter()
    with opened(read([])) as session:
        files: Any = SourcesRegistry.instance().resolve("file")
        load = files.load_config

        def counted(own: Any, config_path: str) -> Any:
            loaded[config_path] += 1
            return load(own, config_path)

        monkeypatch.setattr(files, "load_config", counted)
        for growth in ("none", "schedule"):
            session.compose([f"growth={growth}"])
    assert loaded["config"] == loaded["growth/schedule"] == 1 and max(loaded.values()) == 1


def test_settings_of_one_job_are_not_those_of_the_next() -> None:
    with opened(read([])) as session:
        usual = session.compose(["growth=schedule"])
        other = session.compose(["growth=schedule", "model.width=3", "train.clip=7"])
        again = session.compose(["growth=schedule", "seed=5"])
    assert other.model.width == 3 and other.train.clip == 7 and again.seed == 5
    assert again.model == usual.model and again.train == usual.train


def test_another_search_path_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "warmup").mkdir()
    text = "_target_: progtrain.warmups.none.NoWarmup\n"
    (tmp_path / "warmup" / "mine.yaml").write_text(text, encoding="utf-8")
    with opened(read([])) as session:
        with pytest.raises(ConfigError):
            session.compose(["warmup=mine"])
        place = f"hydra.searchpath=[file://{tmp_path}]"
        assert session.compose([place, "warmup=mine"]).warmup._target_ == text.split()[1]
