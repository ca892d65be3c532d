"""`hydra/sweeper=study`: the jobs of a study, for any launcher. `progtrain study=NAME` chooses it.

The study itself lies in `study.json` of hydra.sweep.dir. Hydra runs this file at each
start, outside of sys.modules: annotations must not be postponed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class StudySweeperConf:
    """What of the study in `study.json` this command runs."""

    _target_: str = "hydra_plugins.progtrain_study.sweeper.StudySweeper"
    arms: list[str] = field(default_factory=lambda: list[str]())
    seeds: list[int] = field(default_factory=lambda: list[int]())


ConfigStore.instance().store(
    group="hydra/sweeper", name="study", node=StudySweeperConf, provider="progtrain"
)


class StudySweeper(Sweeper):
    """Hands over what is neither done nor held by another process, as long as there is any."""

    def __init__(self, arms: list[str], seeds: list[int]) -> None:
        self.arms, self.seeds = list(arms), list(seeds)
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Make the launcher that `hydra/launcher` names."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Every round runs what is left; a job that another process lost is taken up then."""
        from progtrain.study.jobs import left

        assert self.config is not None and self.launcher is not None
        place = Path(str(self.config.hydra.sweep.dir))
        OmegaConf.save(self.config, place / "multirun.yaml")
        every, returns = self._jobs(place), list[Any]()
        batch, before = left(every, place, again=True), None
        while batch and batch != before:
            words = [[*job.overrides, f"hydra.sweep.subdir={job.name}"] for job in batch]
            done = sum(len(each) for each in returns)
            returns.append(self.launcher.launch(words, initial_job_idx=done))
            for result in returns[-1]:
                _ = result.return_value  # raises what a job has raised
            batch, before = left(every, place, again=False), batch
        return returns

    def _jobs(self, place: Path) -> list[Any]:
        from progtrain.study.file import read
        from progtrain.study.jobs import jobs

        study = read(place)
        assert study is not None, f"no study.json in {place}"
        told = {arm.name: arm.overrides for arm in study.arms}
        return jobs([(name, told[name]) for name in self.arms], self.seeds)
