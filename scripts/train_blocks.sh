#!/usr/bin/env bash
# Train the Transformer blocks of SMPLer-blaze on what its frozen backbone sees: scripts/train_blocks.sh OUT
#
# CROPS people are rendered and encoded once; then the blocks and, more slowly, the regressor train on
# them for MINUTES. OUT gets the log, the curve of every stage (stages.json), and the best weights as a
# file of a few megabytes (weights.safetensors); LOGS, by default a folder of OUT, the checkpoints. It
# starts from the released weights. DEVICE=cpu works as well: fewer CROPS then, and more MINUTES. A run
# that was interrupted continues when it is repeated.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:?"scripts/train_blocks.sh OUT: a folder for the results"}
python=${PYTHON:-.venv/bin/python}
device=${DEVICE:-cuda}
workers=${WORKERS:-14}
logs=${LOGS:-$out/logs}
fast=()
if [ "$device" != cpu ]; then
    fast=(--bf16 --cuda_graph)
fi
mkdir -p "$out"

"$python" main.py --exp_name=blocks --log_root="$logs" --device="$device" --auto_load=1 \
    --data_mode=open --model_type=smpler --backbone=blazepose-full \
    --load_checkpoint=pretrained/smpler_open_blaze.safetensors \
    --cache_features="${CROPS:-75000}" --minutes="${MINUTES:-6}" --num_workers="$workers" \
    --batch_size="${BATCH:-128}" --num_epochs=100000 --eval_epochs="${EVAL_EPOCHS:-10}" \
    --save_epochs="${EVAL_EPOCHS:-10}" --save_steps=1000000 --summary_steps=200 \
    --lr=2e-4 --regressor_lr="${REGRESSOR_LR:-0.1}" --warmup_steps=500 --lr_schedule=cosine \
    --clip_grad=500 --ema=0.999 --dropout=0.05 --supervise=all \
    --joint_criterion=l1 --w_3dj=200 --w_2dj=60 --w_betas=0.3 ${fast[@]+"${fast[@]}"} \
    2>&1 | tee "$out/train.log"
"$python" -m benchmarks.stages "$logs"/blocks/checkpoints/epoch_*.pt --device "$device" \
    --num "${NUM_VALIDATION:-512}" --num_workers "$workers" --json "$out/stages.json" \
    2>&1 | tee "$out/stages.log"
"$python" -m scripts.release_weights "$logs/blocks/checkpoints/best.pt" \
    --out "$out/weights.safetensors"
