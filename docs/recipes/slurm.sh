#!/bin/bash
#SBATCH --job-name=capacity
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=0
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120

# Makes the runs of a study file on all nodes of one Slurm job. Submit it with: sbatch slurm.sh STUDY.toml FOLDER
# If the job ends before the study is complete, submit it again with the same arguments.
set -euo pipefail

study=$1
folder=$2
port=6379
export OMP_NUM_THREADS=1

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# Each node runs Ray until the job ends. The first node is the head.
srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$address" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" \
    ray start --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
  sleep 20
fi

# The batch script runs on the first node, so the command does too. The study folder is needed on this node alone.
capacity sweep "$study" --out "$folder" --ray "$address:$port" &
sweep=$!
trap 'kill -TERM "$sweep"' TERM
wait "$sweep"
