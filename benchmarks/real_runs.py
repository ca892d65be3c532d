"""Real runs: growing beside from scratch, on Fashion-MNIST, Shakespeare and CIFAR-10.

    python benchmarks/real_runs.py fashion_mnist --jobs 1 data.root=data
    python benchmarks/real_runs.py shakespeare --jobs 2 data.path=tinyshakespeare.txt
    python benchmarks/real_runs.py cifar10 --jobs 3 data.root=data

Every arm has its own complete schedule. `equal FLOPs` is the full network from scratch in fewer
steps, `fixed` a smaller one in more steps, both at about the FLOPs of the grown arm. Printed for
each arm: the final metric, mean ± standard deviation over seeds; its paired difference to the full
network from scratch with a 95 % interval; FLOPs beside it; seconds of training and growing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paired import Job, difference, result, spread, train_all


@dataclass(frozen=True)
class Study:
    """A recipe of conf/experiment and its arms; the first one is the reference."""

    experiment: str
    metric: str  # of result.json: a test metric, or the primary one
    digits: int
    arms: Mapping[str, tuple[str, ...]]


STUDIES = {
    "fashion_mnist": Study(
        "fashion_cnn",
        "test/accuracy",
        4,
        {
            "from scratch": ("growth=none",),
            "grown": (),
            "from scratch, equal FLOPs": ("growth=none", "train.duration=4.4epochs"),
        },
    ),
    "shakespeare": Study(
        "tinyshakespeare",
        "metric",
        4,
        {
            "from scratch": ("growth=none",),
            "grown 2 → 6 stack at 50 %": (
                "growth.start.depth=2",
                "deepen=stack",
                "deepen.add=4",
            ),
            "grown 2 → 6 interleave at 50 %": (
                "growth.start.depth=2",
                "deepen.add=4",
            ),
            "grown 3 → 6 interleave at 50 %": (),
            "grown 3 → 6 interleave at 60 %": ("growth.stages.deeper.at=60%",),
            "from scratch, equal FLOPs": ("growth=none", "train.duration=470steps"),
            "fixed 2 layers": ("growth=none", "model.depth=2", "train.duration=1300steps"),
            "fixed 3 layers": ("growth=none", "model.depth=3", "train.duration=920steps"),
        },
    ),
    "cifar10": Study(
        "cifar10_resnet_gpu",
        "test/accuracy",
        4,
        {
            "from scratch": ("growth=none",),
            "grown": (),
            "from scratch, equal FLOPs": ("growth=none", "train.duration=31epochs"),
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("outputs/real_runs"))
    parser.add_argument("--only", default="", help="arms whose names hold this word")
    parser.add_argument("more", nargs="*", help="further settings of every run")
    given = parser.parse_intermixed_args()
    study, out = STUDIES[given.study], given.out / given.study
    todo = [
        Job(arm, seed, words)
        for seed in range(given.seeds)
        for arm, words in study.arms.items()
        if given.only in arm
    ]
    train_all(todo, out, [f"experiment={study.experiment}"], given.more, given.jobs)
    print("\n".join(report(study, out, range(given.seeds))))


def report(study: Study, out: Path, seeds: Sequence[int]) -> list[str]:
    """The table, in Markdown."""
    found = {
        arm: {s: r for s in seeds if (r := result(Job(arm, s, ()).folder(out)))}
        for arm in study.arms
    }
    reference = next(iter(found.values()))
    lines = [
        f"| arm | {study.metric.replace('metric', 'val/loss')} | difference | FLOPs | ratio "
        "| seconds | n |",
        "|---" * 7 + "|",
    ]
    for arm, runs in found.items():
        if len(runs) > 1 and reference:
            lines.append(f"| {arm} | " + " | ".join(row(study, runs, reference)) + " |")
    return lines


def row(
    study: Study, runs: Mapping[int, Mapping[str, Any]], reference: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    """What an arm came to."""
    values, beside = by_seed(study, runs), by_seed(study, reference)
    flops, base = (
        statistics.mean(told["flops"] for told in each.values()) for each in (runs, reference)
    )
    return [
        spread([*values.values()], study.digits),
        difference(values, beside, study.digits),
        f"{flops / 1e12:.2f} T",
        f"{flops / base:.2f}",
        spread([told["seconds"] for told in runs.values()], 0),
        str(len(runs)),
    ]


def by_seed(study: Study, runs: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    """The metric of an arm by seed."""
    return {s: (told["test"] or {}).get(study.metric, told["metric"]) for s, told in runs.items()}


if __name__ == "__main__":
    main()
