#!/usr/bin/env bash
# Run the measurements that need a GPU, in about three minutes: scripts/measure_gpu.sh OUT
#
# Writes one log for each into OUT, and one JSON for each benchmark; the most important come first. A
# failure does not stop the rest; the exit code reports it. Nothing is downloaded. LOGS, by default a
# folder of OUT, gets the checkpoints. COMPILED=1 also measures torch.compile, which takes minutes.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${1:?"scripts/measure_gpu.sh OUT: a folder for the results"}
python=${PYTHON:-.venv/bin/python}
workers=${WORKERS:-14}
failed=0
mkdir -p "$out"
out=$(cd "$out" && pwd)
logs=${LOGS:-$out/logs}

measure() { # NAME COMMAND...: run it, keep its output, say how it ended
    local name=$1 begin=$SECONDS
    shift
    local code=0
    "$@" >"$out/$name.log" 2>&1 || code=$?
    [ "$code" = 0 ] || failed=1
    echo "$name: exit code $code, $((SECONDS - begin)) s"
}
benchmark() { # NAME MODULE FLAGS...
    local name=$1 module=$2
    shift 2
    measure "$name" "$python" -m "benchmarks.$module" --device cuda --json "$out/$name.json" "$@"
}
stage_2() { # NAME BATCH FLAGS...: three epochs of stage 2, by the launcher; the last one's speed counts
    local name=$1 batch=$2
    shift 2
    SMPLER_DATASETS="$logs/toy" measure "$name" "$python" -m torch.distributed.run \
        --nproc_per_node=1 main.py --exp_name="$name" --log_root="$logs" --data_mode=h36m \
        --model_type=smpler --num_epochs=3 --eval_epochs=1000 --save_epochs=1000 \
        --batch_size="$batch" --num_workers="$workers" --overwrite "$@"
}
features() { # a short training on cached features, and what each stage gained
    "$python" main.py --exp_name=features --log_root="$logs" --data_mode=open --overwrite \
        --model_type=smpler --backbone=blazepose-full --num_workers="$workers" \
        --load_checkpoint=pretrained/smpler_open_blaze.safetensors --cache_features=8000 \
        --minutes=0.3 --num_epochs=100000 --eval_epochs=100000 --save_epochs=100000 \
        --save_steps=1000000 --batch_size=128 --lr=2e-4 --regressor_lr=0.1 --warmup_steps=200 \
        --clip_grad=500 --ema=0.99 --dropout=0.05 --supervise=all --joint_criterion=l1 \
        --w_3dj=200 --w_2dj=60 --w_betas=0.3 --bf16 --cuda_graph &&
        "$python" -m benchmarks.stages "$logs"/features/checkpoints/last.pt --device cuda \
            --num 256 --num_workers "$workers" --json "$out/stages.json"
}

benchmark training_128 training --batch 128 --bf16 --channels_last --rounds 8
measure recorded "$python" -m pytest -q -p no:cacheprovider tests/training/test_step.py \
    tests/datasets/engine/test_gpu_stream.py
benchmark engine data_engine --batch 128 --num_workers "$workers"
benchmark engine_256 data_engine --batch 256 --num_workers "$workers"
measure features features
measure toy "$python" -m scripts.make_toy_data --out "$logs/toy" --num 512
for batch in 100 256; do
    stage_2 "stage2_${batch}_fp32" "$batch"
    stage_2 "stage2_${batch}_bf16_recorded" "$batch" --bf16 --channels_last \
        --cuda_graph
done
for batch in 1 128; do
    benchmark "inference_$batch" inference --batch "$batch" --bf16 --rounds 10
done
benchmark attention decoupled_attention
benchmark half half_precision --num 200
if [ -n "${COMPILED:-}" ]; then
    benchmark training_128_compiled training --batch 128 --bf16 --channels_last --compile
    for batch in 1 128; do
        benchmark "inference_${batch}_compiled" inference --batch "$batch" --bf16 --compile
    done
fi
grep "images/s" "$out"/stage2_*.log
exit "$failed"
