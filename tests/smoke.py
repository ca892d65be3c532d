"""The options of every group once, on budgets of seconds: `make smoke`.

Each line is a multirun of the real command; a job that fails makes it exit non-zero.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

SHORT = (
    "train.batch_size=32 train.duration=24steps train.evaluate_every=8steps "
    "checkpoint.every=50% hardware.threads=1"
)
NOISE = f"data=synthetic data.samples=128 {SHORT}"
TINY = f"{NOISE} data.shape=[1,8,8]"
TOKENS = "data.length=16 data.bytes=20000"
SMALL_CNN = "model=cnn model.width=4 model.depth=2"
SMALL_RESNET = "model=resnet model.width=4 model.depth=2 model.stages=2"
OTHERS = "efficientnet_b0,densenet121,regnet_y_400mf,mobilenet_v3_small"
GROWING = "growth=schedule growth.start.width=0.5"

COMMANDS = (
    f"growth=glob(*) warmup=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} model=mlp,cnn,resnet optimizer=glob(*) model.width=8 {TINY}",
    f"growth=none model=vit model.width=8 model.depth=0,2 {TINY}",
    f"growth=none model=torchvision model.name=shufflenet_v2_x0_5,squeezenet1_1 {NOISE}",
    f"growth=none model=gpt data=text model.mlp=gelu,swiglu model.width=16 {TOKENS} {SHORT}",
    f"{GROWING} widen=glob(*) warmup=none {SMALL_RESNET} {TINY}",
    f"{GROWING} deepen=glob(*) warmup=none {SMALL_RESNET} {TINY}",
    f"{GROWING} growth.stages.wider.operator=${{insert}} insert=glob(*) insert.place=behind,beside "
    f"warmup=cosine_ramp warmup.length=2steps model=cnn model.width=8 model.depth=2 {TINY}",
    f"{GROWING} optimizer_state=glob(*) train.ema=0.9 {SMALL_CNN} {TINY}",
    f"{GROWING} growth.stages.wider.operator=${{head}} head=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} model=vit model.width=16 model.depth=2 {TINY}",
    f"{GROWING} model=gpt data=text model.norm=rms,layer model.width=16 {TOKENS} {SHORT}",
    f"growth=schedule model=torchvision model.name={OTHERS} data.samples=64 train.duration=4steps "
    f"data=synthetic train.batch_size=16 train.evaluate_every=4steps hardware.threads=1",
    f"{GROWING} scheduler=glob(*) at_growth=glob(*) {SMALL_CNN} {TINY}",
    f"growth=budget growth/choice=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} transfer=glob(*) warmup=none,cosine_ramp {SMALL_CNN} {TINY}",
    f"{GROWING} settle=glob(*) monitor=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} growth.keep_if='gain>0' monitor=[shock,instability] "
    f"monitor.instability.remedy=rollback monitor.shock.remedy=adapt {SMALL_CNN} {TINY}",
    f"{GROWING} curriculum=none,difficulty,image_size {SMALL_CNN} {TINY}",
    f"{GROWING} curriculum=batch_size curriculum.maximum=64 {SMALL_CNN} {TINY}",
    f"{GROWING} curriculum=combination curriculum.curricula.batch_size.maximum=64 "
    f"{SMALL_CNN} {TINY}",
    f"growth=none curriculum=sequence_length model=gpt data=text model.width=16 {TOKENS} {SHORT}",
    f"growth=none curriculum=difficulty curriculum/score=loss,function curriculum/pacing=glob(*) "
    f"{SMALL_CNN} {TINY}",
    f"{GROWING} hardware=auto,cpu hardware.precision=fp32,bf16 {SMALL_CNN} {TINY}",
    f"{GROWING} hardware=ddp hardware.devices=2 hardware.sync_norm=true,false {SMALL_CNN} {TINY}",
    f"{GROWING} hardware=fsdp hardware.devices=2 train.accumulate=1,2 {SMALL_CNN} {TINY}",
    f"{GROWING} hardware=deepspeed hardware.devices=2 {SMALL_CNN} {TINY}",
    f"{GROWING} train.accumulate=1,2 train.clip=0,1 {SMALL_CNN} {TINY}",
    f"{GROWING} augment=glob(*) mix=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} loss=glob(*) metric=accuracy,macro_f1,perplexity train.metric=val/loss "
    f"{SMALL_CNN} {TINY}",
    f"{GROWING} nonfinite.policy=raise,skip,rollback checkpoint.best=0,2 "
    f"stop.early_stopping=null,2epochs {SMALL_CNN} {TINY}",
    f"{GROWING} logger=glob(*) {SMALL_CNN} {TINY}",
    f"{GROWING} debug=none,profile,nans,determinism {SMALL_CNN} {TINY}",
    f"{GROWING} model=gpt data=text data.tokens=bytes,characters,bpe data.vocabulary=300 "
    f"model.width=16 {TOKENS} {SHORT}",
)


def run(command: str, folder: str) -> float:
    """Seconds that one multirun took; exits with its log where it failed."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "progtrain", "-m", *command.split(), f"hydra.sweep.dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
        sys.exit(f"failed ({done.returncode}): progtrain -m {command}")
    return time.perf_counter() - begun


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, command in enumerate(COMMANDS):
            seconds = run(command, f"{folder}/{number}")
            jobs = len([e for e in os.scandir(f"{folder}/{number}") if e.is_dir()])
            print(f"ok {jobs:3} jobs {seconds:6.1f} s  progtrain -m {command}", flush=True)


if __name__ == "__main__":
    main()
