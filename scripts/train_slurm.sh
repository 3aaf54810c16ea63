#!/usr/bin/env bash
# Trains on GPUs of several machines under Slurm, one process a GPU. JAX finds the other processes
# by Slurm's own variables; nothing else has to be set.
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=12 \
#       scripts/train_slurm.sh --config=clip4clip:msrvtt --workdir=DIR ...
# --cpus-per-task: a machine's cores over its GPUs. They read and decode frames; without it Slurm
# gives each process a single one. Submit it from the repository. Arguments go to `vtr train`; DIR
# and the frame store must be on a disk that all machines share. Two minutes before its time is
# over, or when it is preempted, the run saves, exits with 75 and is queued again.
# .venv is needed, on a disk that all machines share, made with: pip install -e '.[data,cuda12]' (or cuda13)
# What Slurm tells JAX:
#   SLURM_STEP_NODELIST, SLURM_JOB_ID   the machine of process 0, and its port
#   SLURM_NTASKS, SLURM_PROCID          how many processes there are, and which one this is
#   SLURM_LOCALID                       which of its machine's GPUs is this process's
# What may be set before sbatch:
#   JAX_COMPILATION_CACHE_DIR=DIR       keeps compiled steps: a resumed run starts at once
#   NCCL_DEBUG=INFO                     says how the GPUs talk to each other

#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
. scripts/environment.sh
[ $# -gt 0 ] || set -- --help
answer_help "$@"
require_vtr "$PWD" "[data,cuda12]"
code=0
# --kill-on-bad-exit=0, because 75 is a bad exit too: the first process that ends with it would have
# the others killed while they still end, and the job's code would not be 75. No process is left
# behind: each ends by itself where another one has ended. srun does not take over sbatch's cores.
srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    .venv/bin/vtr train "$@" || code=$?
if [ "$code" = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
