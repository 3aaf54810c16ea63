#!/usr/bin/env bash
# The long checks, each of which the tests hold in little. About an hour on two cores.
#   bash scripts/soak.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
answer_help "$@"
install_vtr_jax "[test,compile]"
echo "== converting an archive of ViT-L/14's size: peak memory"
"$VENV/bin/python" scripts/soak_conversion.py
echo "== twenty kills at random moments: equal parameters"
"$VENV/bin/python" scripts/soak_kills.py
echo "== preparing on Apache Beam (.cache/beam-venv: its bounds on other packages are narrower)"
[ -x .cache/beam-venv/bin/python ] || "$VENV/bin/python" -m venv .cache/beam-venv
.cache/beam-venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[test,beam]"
.cache/beam-venv/bin/python -m pytest tests/data/test_prepare_beam.py
echo "== every recipe's train step compiled for eight TPU v5e chips"
"$VENV/bin/python" scripts/soak_compile.py
"$VENV/bin/pytest" tests/compile/test_topology.py
echo "== one, two and four processes: equal losses, checkpoints and ranks"
"$VENV/bin/python" scripts/soak_processes.py
echo "== every recipe on three meshes of eight devices: equal losses and gradients"
VTR_ALL_MESHES=1 "$VENV/bin/pytest" tests/training/test_recipes_on_meshes.py
echo "== Python 3.11, 3.12 and 3.13 with the newest releases that setup.py allows"
bash scripts/test_matrix.sh
