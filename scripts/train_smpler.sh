#!/usr/bin/env bash
# The three stages of the paper, one after the other: scripts/train_smpler.sh [w32|w48] [GPUS]
# Stage 3 starts from the epoch of stage 2 with the lowest MPJPE (best.pt).
set -euo pipefail
cd "$(dirname "$0")/.."

hrnet=${1:-w32}
gpus=${2:-2}
case $hrnet in
    w32) suffix= ;;
    w48) suffix=-L ;;
    *) echo "scripts/train_smpler.sh: '$hrnet' is neither w32 nor w48" >&2; exit 2 ;;
esac
python=${PYTHON:-.venv/bin/python}
launch() { "$python" -m torch.distributed.run --nproc_per_node="$1" main.py "${@:2}"; }

launch "$gpus" --exp_name="backbone$suffix" --batch_size=100 --num_workers=8 --lr=2e-4 \
    --data_mode=h36m --model_type=backbone --num_epochs=50 --hrnet_type="$hrnet" --auto_load=1
launch "$gpus" --exp_name="smpler$suffix" --batch_size=100 --num_workers=8 --lr=2e-4 \
    --data_mode=h36m --model_type=smpler --num_epochs=100 --hrnet_type="$hrnet" --auto_load=1 \
    --load_checkpoint="logs/backbone$suffix/checkpoints/epoch_049.pt"
launch 1 --exp_name="smpler${suffix}_3dpw" --batch_size=32 --num_workers=8 --lr=1e-4 \
    --data_mode=3dpw --model_type=smpler --num_epochs=1 --hrnet_type="$hrnet" --auto_load=1 \
    --load_checkpoint="logs/smpler$suffix/checkpoints/best.pt" --summary_steps=100
