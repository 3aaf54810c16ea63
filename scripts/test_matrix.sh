#!/usr/bin/env bash
# Tests vtr_jax on Python 3.11, 3.12 and 3.13, each in a fresh environment with the newest releases
# that setup.py allows: parity, models, data, the installed wheel and the short demo. About ten
# minutes per interpreter on two cores. An interpreter that is not found is named and left out.
#   bash scripts/test_matrix.sh           all three
#   bash scripts/test_matrix.sh 3.13      this one only
# Environments are created in .cache/matrix and removed after their tests; VTR_KEEP=1 keeps them.
# The other environment (.venv) is not touched. VTR_GOLDEN_DIR and VTR_SHARED_DIR reach the tests.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/environment.sh
answer_help "$@"
FOLDER=.cache/matrix
PACKAGES="jax|jaxlib|flax|optax|orbax-checkpoint|ml_collections|absl-py|numpy|av|pillow|tokenizers"
PACKAGES+="|ftfy|safetensors|transformers|tqdm|matplotlib|tensorflow.cpu|tensorflow-datasets"

# Print the interpreter of a supported version (3.13) on PATH or in pyenv; nothing if there is none.
interpreter() {
    local candidate
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        right_python "$candidate" &&
            "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" &&
            { command -v "$candidate"; return; }
    done
}

# Run a stage, print how long it took, and note it in `failed` if it fails.
stage() {
    local name="$1" began=$SECONDS
    shift
    echo "== Python $version: $name"
    "$@" && echo "   $name: passed in $((SECONDS - began)) s" || { failed+=("$version: $name"); return 1; }
}

install() {
    PYTHON="$1" VTR_VENV="$2" bash -c '. scripts/environment.sh; install_vtr_jax "[test]"' &&
        "$2/bin/python" -m pip list --disable-pip-version-check | grep -iE "^($PACKAGES) "
}

test_version() {
    local version="$1" python="$2" venv="$FOLDER/$1"
    rm -rf "$venv"
    if stage installation install "$python" "$venv"; then
        export TF_CPP_MIN_LOG_LEVEL=3
        stage tests "$venv/bin/python" -m pytest --numprocesses=auto --maxprocesses=4 \
            --dist=loadfile tests/parity tests/models tests/data tests/test_wheel.py \
            tests/test_setup.py tests/test_extras.py
        stage demo env VTR_VENV="$venv" bash scripts/demo.sh --short --out="$venv/demo"
    fi
    [ -n "${VTR_KEEP:-}" ] || rm -rf "$venv"
}

failed=() missing=()
[ $# -gt 0 ] || set -- 3.11 3.12 3.13
mkdir -p "$FOLDER"
for version in "$@"; do
    python="$(interpreter "$version")"
    if [ -z "$python" ]; then missing+=("$version"); else test_version "$version" "$python"; fi
done
[ ${#missing[@]} = 0 ] || echo "== not tested, no interpreter found: Python ${missing[*]}"
[ ${#missing[@]} -lt $# ] || fail "expected Python $* on PATH or in pyenv, found none of them"
[ ${#failed[@]} = 0 ] || fail "$(printf '%s; ' "${failed[@]}")see above"
echo "== every interpreter found passed"
