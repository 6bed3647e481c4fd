#!/usr/bin/env bash
# A manifest on a Slurm cluster: each task of the array transcribes its part, and starts again where it was killed.
#
#     sbatch --array=1-64 deploy/slurm.sh MANIFEST OUT [OPTIONS of asr transcribe]
#
# A task that was killed or preempted is queued again; a second sbatch does what is left. Tasks of different
# arrays may work at the same time, as long as the options are the same.
#SBATCH --job-name=asr
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=asr-%A-%a.log
set -euo pipefail

manifest=$1 out=$2
shift 2
first=${SLURM_ARRAY_TASK_MIN:-1}
part=$(((SLURM_ARRAY_TASK_ID - first) / ${SLURM_ARRAY_TASK_STEP:-1} + 1))
exec asr transcribe "$manifest" -o "$out" --shard "$part/$SLURM_ARRAY_TASK_COUNT" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" "$@"
