#!/usr/bin/env bash
# Trains on all GPUs of one machine. One process drives them all: nothing has to be launched.
#   bash scripts/train_gpus.sh --config=clip4clip:msrvtt --workdir=DIR ...
# .venv is needed, made with: pip install -e '.[data,cuda12]' (or cuda13)
# Arguments go to `vtr train`. What may be set before it:
#   CUDA_VISIBLE_DEVICES=0,1                these GPUs only
#   XLA_PYTHON_CLIENT_MEM_FRACTION=0.92     share of each GPU's memory that JAX takes at the start
#   JAX_COMPILATION_CACHE_DIR=DIR           keeps compiled steps: a resumed run starts at once
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -gt 0 ] || set -- --help
answer_help "$@"
repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
require_vtr "$repository" "[data,cuda12]"
exec "$repository/.venv/bin/vtr" train "$@"
