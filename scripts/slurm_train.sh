#!/usr/bin/env bash
# slurm_train.sh: a batch job that trains on all GPUs of its nodes, one task per GPU. Submit it with the words of `train`:
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 scripts/slurm_train.sh --config configs/160m.yaml \
#     --set 'data.files=[/data/*.h5ad]' --set run.dir=/scratch/runs/160m
# Two minutes before its time is up Slurm signals the tasks; they save a checkpoint and end with exit code 143, and the job
# puts itself back into the queue. --resume auto goes on from there. The run directory must be on a file system that all
# nodes see. SCRNA_TRAIN names the program (default: the one of this clone).
#SBATCH --job-name=scrna-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm runs a copy of this file in a spool folder: the clone is where the job was submitted.
program="${SCRNA_TRAIN:-${SLURM_SUBMIT_DIR:-$PWD}/build/release/bin/scrna-train}"
[ -x "$program" ] || { echo "slurm_train.sh: $program is not there; build it, or set SCRNA_TRAIN" >&2; exit 2; }
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# srun's variables tell each task its rank and where rank 0 is (lib/dist/world.h). One failure ends the step.
code=0
srun --kill-on-bad-exit=1 "$program" train "$@" --resume auto || code=$?
if [ "$code" -eq 143 ]; then
  echo "slurm_train.sh: saved; back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
