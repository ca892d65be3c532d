"""Which image files a folder holds, and of which class; imports nothing of torch.

root/<class>/…/*.png                  split by a seed into training, validation (and test)
root/train/<class>/…/*.png            given splits: beside it val/ and test/, where there are
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from progtrain.errors import ConfigError, did_you_mean

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_VALIDATION = ("val", "valid", "validation")
_LAYOUT = (
    "It takes a folder with a folder of images for each class, such as photos/cats/1.png and"
    " photos/dogs/2.png, or such folders in train/, val/ and test/."
)


@dataclass(frozen=True)
class Listed:
    """Image files and the index of their class, sorted by class and name."""

    files: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)


@dataclass(frozen=True)
class Folders:
    """What lies under a root: all images, or the parts that are given."""

    classes: tuple[str, ...]
    train: Listed  # all images, where `given` is false
    validation: Listed | None
    test: Listed | None
    given: bool


def count_classes(root: str) -> int:
    """How many classes `data.root` has; raises `ConfigError`."""
    return len(class_names(root))


def class_names(root: str) -> tuple[str, ...]:
    """Names of the classes, sorted; raises `ConfigError` where there are no two of them."""
    top = _top(root)
    train = top / "train"
    place = train if _inner(train) else top
    names = tuple(folder.name for folder in _inner(place))
    if len(names) < 2:
        found = f"one class only ({names[0]})" if names else "no folders of classes"
        raise ConfigError(f"data.root={root} has {found}: two are needed to train. {_LAYOUT}")
    return names


def read_folders(root: str) -> Folders:
    """All image files under `root`; raises `ConfigError` for what is no data set."""
    classes, top = class_names(root), _top(root)
    if not _inner(top / "train"):
        return Folders(classes, _listed(top, classes), None, None, given=False)
    known = {"train": "train", "test": "test", **dict.fromkeys(_VALIDATION, "validation")}
    parts: dict[str, Listed] = {}
    for folder in _inner(top):
        part = known.get(folder.name)
        if part is None or part in parts:
            raise ConfigError(
                f"data.root={root}: beside train/ lies {folder.name}/, which is"
                f" {'another validation' if part else 'neither val nor test'}. {_LAYOUT}"
            )
        parts[part] = _listed(folder, classes, part == "train")
    return Folders(classes, parts["train"], parts.get("validation"), parts.get("test"), given=True)


def _top(root: str) -> Path:
    top = Path(root).expanduser()
    if top.is_dir():
        return top
    if top.exists():
        raise ConfigError(f"data.root={root} is a file. {_LAYOUT}")
    siblings = [p.name for p in top.parent.iterdir()] if top.parent.is_dir() else []
    near = did_you_mean(top.name, siblings)
    raise ConfigError(f"No folder data.root={root} (looked from {Path.cwd()}).{near} {_LAYOUT}")


def _inner(place: Path) -> list[Path]:
    """Folders in a folder, sorted; hidden ones are left out."""
    if not place.is_dir():
        return []
    return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))


def _listed(place: Path, classes: tuple[str, ...], complete: bool = True) -> Listed:
    """The images of every class; each must have one, where `complete`."""
    strange = [folder.name for folder in _inner(place) if folder.name not in classes]
    if strange:
        near = did_you_mean(strange[0], classes)
        raise ConfigError(f"{place / strange[0]} is a class that train/ does not have.{near}")
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(classes):
        found = _images(place / name)
        if not found and complete:
            raise ConfigError(
                f"{place / name} holds no image ({', '.join(EXTENSIONS)}), so its class cannot be"
                " learnt. Fill the folder, or move it away."
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise ConfigError(f"{place} holds no images. Fill it, or move it away.")
    return Listed(tuple(files), tuple(labels))


def _images(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    return sorted(p for p in found if not p.name.startswith(".") and p.is_file())
