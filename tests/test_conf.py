"""Every YAML composes, builds, says what it is, and shows a command that composes too."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from image_kit import photos
from omegaconf import DictConfig, OmegaConf
from run_kit import some

from progtrain.build import build
from progtrain.command_line import classes

CONF = Path(__file__).parent.parent / "conf"
NEEDS = {  # tokens, not images; one of two settings
    "model/gpt.yaml": "data=text",
    "data/text.yaml": "model=gpt",
    "data/image_folder.yaml": "data.root=photos",
    "curriculum/score/column.yaml": "curriculum.score.name=closeness",
}
WITHIN = {  # an option in which a group is
    "growth/choice": "growth=budget",
    "curriculum/score": "curriculum=difficulty",
    "curriculum/pacing": "curriculum=difficulty",
}
FILES = sorted(p.relative_to(CONF) for p in CONF.rglob("*.yaml") if p.name != "config.yaml")
OPTIONS = [option for option in FILES if option.parent.name != "study"]  # those: test_study


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that commands name are the reader's, so their classes are not counted here."""

    def some_classes(config: DictConfig, uncounted: bool, build: object) -> None:
        if uncounted:
            OmegaConf.update(config, "data.num_classes", 256)

    monkeypatch.setattr(classes, "settle", some_classes)


@pytest.fixture(autouse=True, scope="module")
def _beside_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In a folder where the images lie that commands name."""
    place, before = tmp_path_factory.mktemp("here"), Path.cwd()
    photos(place / "photos", 1)
    os.chdir(place)
    yield
    os.chdir(before)


def _composed(overrides: list[str]):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides)


def _choice(option: Path) -> list[str]:
    group = option.parent.as_posix()
    if group == "metric":  # beside the one that train.metric names
        return [f"metric=[{','.join(dict.fromkeys(['accuracy', option.stem]))}]"]
    base = [WITHIN[group]] if group in WITHIN else []
    base += [NEEDS[option.as_posix()]] if option.as_posix() in NEEDS else []
    return [*base, f"{group}={option.stem}"]


def _is_recipe(option: Path) -> bool:
    return option.parent.name == "experiment"


def test_there_are_options_to_test() -> None:
    assert len(OPTIONS) > 40


@pytest.mark.parametrize("option", some(OPTIONS, 2), ids=str)
def test_an_option_composes_and_builds(option: Path) -> None:
    parts = build(_composed(_choice(option)))
    assert parts.train.metric in ("val/accuracy", *(["val/loss"] if _is_recipe(option) else []))


@pytest.mark.parametrize("option", some(OPTIONS, 4), ids=str)
def test_a_yaml_opens_with_what_it_is_and_a_command_that_chooses_it(option: Path) -> None:
    head: list[str] = []
    for line in (CONF / option).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    assert head, "no comment at the top"
    commands = [line for line in head if line.startswith("progtrain ")]
    assert commands, "no command"
    chosen = f"{option.parent.as_posix()}={option.stem}"
    assert any(chosen in command for command in commands), f"no command chooses {chosen}"
    for command in commands:
        build(_composed(shlex.split(command)[1:]))


@pytest.mark.parametrize("option", [o for o in OPTIONS if not _is_recipe(o)], ids=str)
def test_a_yaml_names_every_field_of_its_class_but_none_it_lacks(option: Path) -> None:
    """A setting that is not in the YAML could not be set without a plus sign."""
    import inspect

    from progtrain.command_line.targets import locate

    node = OmegaConf.load(CONF / option)
    target = node.get("_target_")
    assert target is not None
    parameters = inspect.signature(locate(target, ())).parameters
    settable = {k for k in parameters if k not in ("self",)}
    written = {str(k) for k in node} - {"_target_", "_partial_", "defaults"}
    assert written <= settable, f"unknown: {written - settable}"
    missing = settable - written - {"choice", "score", "pacing"}
    assert not missing, f"not in the YAML: {missing}"
