#!/usr/bin/env bash
# Run all measurements that need a GPU, in a quarter of an hour: scripts/measure_gpu.sh OUT
#
# Writes one log for each into OUT, and one JSON for each benchmark. A failure does not stop the rest;
# the exit code reports it. What takes seconds comes first, what has to compile last.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${1:?"scripts/measure_gpu.sh OUT: a folder for the results"}
python=${PYTHON:-.venv/bin/python}
failed=0
mkdir -p "$out"
out=$(cd "$out" && pwd)

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
stage_2() { # NAME BATCH FLAGS...: three epochs of stage 2 over NCCL; the last one's speed counts
    local name=$1 batch=$2
    shift 2
    SMPLER_DATASETS="$out/toy" measure "$name" "$python" -m torch.distributed.run \
        --nproc_per_node=1 main.py --exp_name="$name" --log_root="$out/logs" --data_mode=h36m \
        --model_type=smpler --num_epochs=3 --eval_epochs=1000 --save_epochs=1000 \
        --batch_size="$batch" --num_workers=14 "$@"
}

benchmark engine data_engine --batch 128 --num_workers 14
benchmark attention decoupled_attention
benchmark half half_precision --num 200
measure toy "$python" -m scripts.make_toy_data --out "$out/toy" --num 512
for batch in 100 256; do
    stage_2 "stage2_${batch}_fp32" "$batch"
done
for batch in 1 8 32 128; do
    benchmark "inference_$batch" inference --batch "$batch" --bf16 --rounds 20
done
benchmark training_128 training --batch 128 --bf16 --channels_last
for batch in 100 256; do
    stage_2 "stage2_${batch}_bf16_compiled" "$batch" --bf16 --channels_last --compile
done
for batch in 1 128; do
    benchmark "inference_${batch}_compiled" inference --batch "$batch" --bf16 --compile --rounds 20
done
benchmark training_128_compiled training --batch 128 --bf16 --channels_last --compile
grep "images/s" "$out"/stage2_*.log
exit "$failed"
