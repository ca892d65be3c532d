"""Warmup × transfer at fixed growth and equal FLOPs on Fashion-MNIST, beside fixed networks.

    python benchmarks/warmup_transfer.py --jobs 2 --out outputs/warmup_transfer

Every run spends the same number of training FLOPs, teachers included: its length is given in FLOPs,
so the learning rate of each decays to its end. Grown runs start at half the width and half the
depth, get deeper at 30 % and wider at 60 % of the FLOPs. The baselines are the full network and the
two smaller ones from scratch. Runs share seeds, so differences are paired. Jobs that are done are
not repeated; what was interrupted goes on. Printed: test accuracy in %, mean ± standard deviation,
and the difference to the full network from scratch with its 95 % interval (paired t), then that of
every other warmup to zero_init.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

WARMUPS = (
    "none",
    "zero_init",
    "lr",
    "linear_ramp",
    "cosine_ramp",
    "exponential_ramp",
    "frozen_host",
)
TRANSFERS = ("inherit", "preserve", "distill", "progressive")
FLOPS = 1.1e13  # four epochs of the full network
SETTINGS = (
    "data=fashion_mnist",
    "model=cnn",
    "model.width=16",
    "model.depth=2",
    "train.batch_size=256",
    "train.evaluate_every=10%",
    "checkpoint.every=100%",
    "hardware.threads=1",
)
GROWTH = (
    "growth=schedule",
    "deepen=interleave",
    "widen=random",
    "growth.stages.deeper.at=30%",
    "growth.stages.wider.at=60%",
)
BASELINES = {
    "full network from scratch": ("growth=none",),
    "half the width from scratch": ("growth=none", "+growth.start.width=0.5"),
    "half of both from scratch": (
        "growth=none",
        "+growth.start.width=0.5",
        "+growth.start.depth=0.5",
    ),
}
REFERENCE = "full network from scratch"
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


@dataclass(frozen=True)
class Job:
    """One run: an arm with a seed."""

    arm: str
    seed: int
    overrides: tuple[str, ...]

    def folder(self, out: Path) -> Path:
        return out / self.arm.replace(" ", "_").replace("=", "_") / f"seed_{self.seed}"


def arms() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from BASELINES.items()
    for warmup in WARMUPS:
        for transfer in TRANSFERS:
            yield f"{warmup} {transfer}", (*GROWTH, f"warmup={warmup}", f"transfer={transfer}")


def result(folder: Path) -> dict[str, float] | None:
    """What a finished run came to."""
    path = folder / "result.json"
    told = json.loads(path.read_text()) if path.is_file() else {}
    if told.get("status") != "done":
        return None
    tested = told["test"] or {"test/accuracy": told["metric"]}  # where a set has no test part
    return {"accuracy": 100 * tested["test/accuracy"], "flops": told["flops"]}


def train(job: Job, out: Path, more: Sequence[str]) -> None:
    folder = job.folder(out)
    if result(folder):
        return
    words = [*SETTINGS, f"train.duration={FLOPS:g}flops", *job.overrides, f"seed={job.seed}", *more]
    command = [sys.executable, "-m", "progtrain", *words, f"hydra.run.dir={folder}", "resume=auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"failed: {' '.join(command)}\n{done.stdout[-500:]}{done.stderr[-1500:]}", flush=True)


def report(out: Path, seeds: Sequence[int]) -> list[str]:
    """The tables, in Markdown."""
    found = {
        arm: {s: r for s in seeds if (r := result(Job(arm, s, ()).folder(out)))}
        for arm, _ in arms()
    }
    reference = found[REFERENCE]
    lines = ["| from scratch | accuracy | difference | PFLOP | n |", "|---|---|---|---|---|"]
    for arm in BASELINES:
        lines.append(f"| {arm} | " + " | ".join(row(found[arm], reference)) + " |")
    lines += ["", "| warmup | " + " | ".join(f"transfer={t}" for t in TRANSFERS) + " |"]
    lines.append("|---" * (len(TRANSFERS) + 1) + "|")
    for warmup in WARMUPS:
        cells = [row(found[f"{warmup} {transfer}"], reference) for transfer in TRANSFERS]
        lines.append(f"| `{warmup}` | " + " | ".join(f"{c[0]} ({c[1]})" for c in cells) + " |")
    beside = found["zero_init inherit"]
    others = [
        f"{w} {difference(found[f'{w} inherit'], beside)}" for w in WARMUPS if w != "zero_init"
    ]
    lines += ["", f"Beside zero_init, transfer=inherit: {', '.join(others)}."]
    spent = [r["flops"] / FLOPS for each in found.values() for r in each.values()]
    if spent:
        counts = {len(each) for each in found.values()}
        lines += ["", f"FLOPs of every run: {min(spent):.4f} to {max(spent):.4f} of {FLOPS:g}."]
        lines += [f"Seeds an arm: {min(counts)} to {max(counts)}."]
    return lines


def row(found: dict[int, dict[str, float]], reference: dict[int, dict[str, float]]) -> list[str]:
    """Accuracy, paired difference to the reference, cost and count of an arm."""
    if len(found) < 2:
        return ["–", "–", "–", str(len(found))]
    values = [each["accuracy"] for each in found.values()]
    cost = statistics.mean(each["flops"] for each in found.values()) / 1e15
    return [spread(values), difference(found, reference), f"{cost:.4f}", str(len(values))]


def spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def difference(found: dict[int, dict[str, float]], reference: dict[int, dict[str, float]]) -> str:
    """Mean paired difference with its 95 % interval."""
    both = sorted(found.keys() & reference.keys())
    paired = [found[s]["accuracy"] - reference[s]["accuracy"] for s in both]
    if len(paired) < 2 or not any(paired):
        return "–"
    half = T95.get(len(paired), 1.96) * statistics.stdev(paired) / len(paired) ** 0.5
    return f"{statistics.mean(paired):+.2f} ± {half:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/warmup_transfer"))
    parser.add_argument("--only", default="", help="arms whose names hold this word")
    parser.add_argument("more", nargs="*", help="further settings of every run")
    given = parser.parse_args()
    seeds = range(given.seeds)
    todo = [Job(arm, s, words) for s in seeds for arm, words in arms() if given.only in arm]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda job: train(job, given.out, given.more), todo))
    print("\n".join(report(given.out, seeds)))


if __name__ == "__main__":
    main()
