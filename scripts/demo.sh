#!/usr/bin/env bash
# Installs vtr_jax into .venv and runs the main job on real video files: render, prepare, train,
# evaluate, report. About 5 minutes on two cores after installation.
#   bash scripts/demo.sh              everything, into demo/
#   bash scripts/demo.sh --short      every stage in little, into demo-short/
#   PYTHON=python3.13 VTR_VENV=.venv313 bash scripts/demo.sh --short      another Python
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
answer_help "$@"
install_vtr_jax "[data]"
# Huge pages spare the CPU most page faults of large arrays: a quarter of a training step.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
exec "$VENV/bin/python" scripts/demo.py "$@"
