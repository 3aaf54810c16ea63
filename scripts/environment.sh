# Creates, repairs or reuses an environment with vtr_jax installed. The other scripts source it from
# the repository root: `answer_help "$@"`, then `install_vtr_jax EXTRAS`, with EXTRAS such as "[test]".
#   VTR_VENV=DIR              the environment's folder; default: .venv
#   PYTHON=/path/to/python    the interpreter of a new environment; default: the first one found

VENV="${VTR_VENV:-.venv}"

fail() { echo "error: $*" >&2; exit 1; }

# The comment at the head of a script is its help.
answer_help() {
    local argument script
    script="$(dirname "${BASH_SOURCE[0]}")/$(basename "$0")"
    for argument in "$@"; do
        case "$argument" in
        --help | -h)
            awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$script"
            exit 0
            ;;
        esac
    done
}

right_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        right_python "$candidate" && { echo "$candidate"; return; }
    done
    fail "expected Python 3.11, 3.12 or 3.13, found $(python3 --version 2>/dev/null || echo none);" \
        "install one of them or set PYTHON=/path/to/python3.11"
}

require_disk() {
    local free_kib needed_kib=$(($1 * 1024 * 1024))
    free_kib=$(df -Pk . | awk 'NR==2 {print $4}')
    [ "$free_kib" -ge "$needed_kib" ] ||
        fail "$1 GiB of free disk are needed here, found $((free_kib / 1024 / 1024)) GiB"
}

# Print why the environment cannot be installed into as it is; nothing if it can.
venv_problem() {
    local script module
    right_python "$VENV/bin/python" || { echo "its Python is gone or not 3.11 to 3.13"; return; }
    module=$("$VENV/bin/python" -c 'import pip; print(pip.__path__[0])' 2>/dev/null) ||
        { echo "it has no pip"; return; }
    # Commands name their Python by an absolute path: a folder that was moved or copied breaks them.
    script=$("$VENV/bin/pip" --version 2>/dev/null | sed 's/.* from \(.*\) (python.*/\1/')
    [ "$script" -ef "$module" ] || echo "it was made in another folder"
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    echo "== creating $VENV with $("$python" --version)"
    "$python" -m venv --clear "$VENV" ||
        fail "cannot create $VENV (on Debian: apt-get install python3-venv)"
}

is_installed() {
    [ -f "$VENV/installed" ] && grep -qxF "$1" "$VENV/installed" && [ -z "$(venv_problem)" ] &&
        "$VENV/bin/vtr" --version >/dev/null 2>&1 &&
        "$VENV/bin/python" -m pip check --disable-pip-version-check >/dev/null 2>&1
}

pip_install() {
    echo "== installing vtr_jax$1 into $VENV (up to 3 GB, a few minutes the first time)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".$1"
}

# For scripts that train: their environment is installed once, with the extra for the accelerator.
# require_vtr FOLDER EXTRAS: FOLDER is the one that contains .venv.
require_vtr() {
    [ -x "$1/.venv/bin/vtr" ] ||
        fail "$1/.venv/bin/vtr: not found; there: python3.11 -m venv .venv && .venv/bin/pip install -e '.$2'"
}

install_vtr_jax() {
    local extras="$1" problem wanted
    wanted="$(cksum <setup.py) $extras"
    if is_installed "$wanted"; then
        echo "== using $VENV"
        return
    fi
    require_disk 4
    problem=$(venv_problem)
    if [ -n "$problem" ]; then
        [ ! -e "$VENV" ] || echo "== $VENV cannot be used: $problem"
        make_venv
    fi
    if ! pip_install "$extras"; then
        echo "== that failed; trying once more in a new $VENV"
        make_venv
        pip_install "$extras" || fail "installation failed; the lines above say why"
    fi
    "$VENV/bin/vtr" --version >/dev/null || fail "$VENV/bin/vtr does not run; delete $VENV, try again"
    echo "$wanted" >>"$VENV/installed"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then answer_help "$@"; fi
