#!/usr/bin/env bash
# The main job on one GPU: every precision over three seeds, torch.compile, and a killed run resumed.
#   bash benchmarks/gpu_main_job.sh [output directory]
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-outputs/gpu}
main="growth=budget warmup=cosine_ramp"
python3 -m progtrain -m $main hardware=gpu hardware.precision=fp32,tf32,bf16,fp16 seed=0,1,2 \
  hydra.sweep.dir="$out/precision" > "$out-precision.log" 2>&1
tail -n 30 "$out-precision.log"
python3 -m progtrain $main hardware=gpu hardware.compile=true hydra.run.dir="$out/compiled" | tail -n 25
python3 -m progtrain model=resnet $main hardware=gpu hardware.precision=bf16 \
  hydra.run.dir="$out/resnet" | tail -n 9
echo "killed after a while, then resumed:"
timeout -s KILL 14 python3 -m progtrain $main hardware=gpu hardware.deterministic=true \
  train.duration=200epochs checkpoint.every=50steps hydra.run.dir="$out/killed" | tail -n 2
python3 -m progtrain resume="$out/killed" train.duration=200epochs | tail -n 9
