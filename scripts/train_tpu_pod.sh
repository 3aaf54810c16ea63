#!/usr/bin/env bash
# Trains on a TPU pod slice: the same command on every host of it. JAX finds the other hosts by
# itself; on a slice with one host this is `vtr train`.
#   TPU_NAME=my-slice ZONE=us-west4-a bash scripts/train_tpu_pod.sh \
#       --config=clip4clip:msrvtt --workdir=DIR ...
# Arguments go to `vtr train`. DIR and the frame store must be on a disk that all hosts share. Every
# host needs the repository, with its .venv (pip install -e '.[data,tpu]'), in the same folder.
#   TPU_NAME, ZONE    the slice, as gcloud knows it
#   FOLDER            the repository on the hosts; default: vtr_jax in the home folder
#   PROJECT           the cloud project; default: gcloud's own setting
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -gt 0 ] || set -- --help
answer_help "$@"
exec gcloud compute tpus tpu-vm ssh "${TPU_NAME:?the slice, as gcloud knows it}" \
    --zone="${ZONE:?the zone of the slice}" ${PROJECT:+--project="$PROJECT"} --worker=all \
    --command="cd '${FOLDER:-vtr_jax}' && JAX_COMPILATION_CACHE_DIR=.cache/jax .venv/bin/vtr train ${*@Q}"
