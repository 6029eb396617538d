#!/usr/bin/env bash
# Train on several nodes: sbatch --nodes=2 scripts/slurm_train.sh [flags of main.py]
# A job that is stopped or requeued continues from its last checkpoint.
#SBATCH --job-name=smpler
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun "${PYTHON:-.venv/bin/python}" -m torch.distributed.run \
    --nnodes="$SLURM_NNODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
    --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d --rdzv_endpoint="$first_node:29500" \
    main.py --auto_load=1 --bf16 "$@"
