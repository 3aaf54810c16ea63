#!/usr/bin/env bash
# Installs vtr_jax with its test tools into .venv and runs lint, format, types and all tests, the
# models a second time in flax's other graph mode. Arguments go to pytest.
#   bash scripts/test.sh
#   bash scripts/test.sh tests/test_cli.py      these tests only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
answer_help "$@"
install_vtr_jax "[test]"
export PATH="$(cd "$VENV" && pwd)/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=3

echo "== lint"
ruff check .
echo "== format"
ruff format --check .
echo "== types"
mypy
echo "== tests"
parallel=(--numprocesses=auto --maxprocesses=4 --dist=loadfile)
pytest "${parallel[@]}" --durations=20 "$@"
echo "== models and one case a system in flax's tree mode"
NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false \
    pytest "${parallel[@]}" tests/models tests/parity/test_models.py -k "not test_case or vit-p32 \
    or seqTransf-2d or wti1_none_cdcr3 or seqtransf_2layers or seqtransf_hyper or strongpatch \
    or evl_meanp"
