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
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from paired import Job, difference, result, spread, train_all

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


def arms() -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from BASELINES.items()
    for warmup in WARMUPS:
        for transfer in TRANSFERS:
            yield f"{warmup} {transfer}", (*GROWTH, f"warmup={warmup}", f"transfer={transfer}")


def accuracy(folder: Path) -> dict[str, float] | None:
    """Test accuracy in % and FLOPs of a finished run."""
    told = result(folder)
    if told is None:
        return None
    tested = told["test"] or {"test/accuracy": told["metric"]}  # where a set has no test part
    return {"accuracy": 100 * tested["test/accuracy"], "flops": told["flops"]}


def report(out: Path, seeds: Sequence[int]) -> list[str]:
    """The tables, in Markdown."""
    found = {
        arm: {s: r for s in seeds if (r := accuracy(Job(arm, s, ()).folder(out)))}
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
        f"{w} {difference(only(found[f'{w} inherit']), only(beside))}"
        for w in WARMUPS
        if w != "zero_init"
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
    return [
        spread(values),
        difference(only(found), only(reference)),
        f"{cost:.4f}",
        str(len(values)),
    ]


def only(found: dict[int, dict[str, float]]) -> dict[int, float]:
    """Accuracy by seed."""
    return {seed: each["accuracy"] for seed, each in found.items()}


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
    settings = [*SETTINGS, f"train.duration={FLOPS:g}flops"]
    train_all(todo, given.out, settings, given.more, given.jobs)
    print("\n".join(report(given.out, seeds)))


if __name__ == "__main__":
    main()
