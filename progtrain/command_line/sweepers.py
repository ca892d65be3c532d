"""What must be known of Hydra's other sweepers and launchers before they start anything."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from omegaconf import DictConfig, OmegaConf

from progtrain.hardware.place import cpus
from progtrain.metrics import smaller_is_better

_BEST = {"max": "maximize", "min": "minimize"}


def problems(config: DictConfig) -> Iterator[str]:
    """What would spoil a study from its first trial on; `config` is a job's, Hydra's node in it."""
    if not _is(config, "sweeper", "OptunaSweeper"):
        return
    direction = str(config.hydra.sweeper.direction).rpartition(".")[2]
    mode = config.train.mode or ("min" if smaller_is_better(str(config.train.metric)) else "max")
    wanted = _BEST.get(str(mode))
    if wanted and direction in _BEST.values() and direction != wanted:
        yield (
            f"hydra.sweeper.direction={direction} would look for the worst {config.train.metric}"
            f" (train.mode={mode}): write hydra.sweeper.direction={wanted}."
        )
    optuna, database = _major("optuna"), _major("sqlalchemy")
    if config.hydra.sweeper.get("storage") and optuna == 2 and database > 1:
        yield (
            "hydra.sweeper.storage: optuna 2 cannot store a study with the installed SQLAlchemy."
            " Try pip install 'sqlalchemy<2' 'alembic<1.14', or no storage: with a"
            " hydra.sweeper.sampler.seed the same command with resume=auto continues a study."
        )


def warnings(config: DictConfig) -> Iterator[str]:
    """Where jobs that run at once would ask for more cores than there are."""
    cores, threads = cpus(), OmegaConf.select(config, "hardware.threads")
    if _is(config, "launcher", "JoblibLauncher"):
        jobs = int(config.hydra.launcher.get("n_jobs") or 1)
        jobs = jobs if jobs > 0 else max(1, cores + 1 + jobs)
        if threads and jobs * int(threads) > cores and jobs > 1:
            yield (
                f"{jobs} jobs at once with hardware.threads={threads} on {cores} cores: they wait"
                f" for each other. Try hardware.threads={max(1, cores // jobs)}, or null: each job"
                " then gets its share."
            )
    if _is(config, "launcher", "LocalLauncher") and not threads:
        yield (
            "hydra/launcher=submitit_local starts all jobs at once, each with a thread for every"
            " core. Set hardware.threads, such as hardware.threads=1."
        )


def _is(config: DictConfig, part: str, name: str) -> bool:
    node = config.hydra.get(part)
    return node is not None and str(node.get("_target_")).endswith(f".{name}")


def _major(package: str) -> int:
    try:
        return int(version(package).partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0
