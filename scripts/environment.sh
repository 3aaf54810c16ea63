# Makes or reuses .venv with vtr_jax installed. Sourced from the repository root by the other
# scripts: `install_vtr_jax EXTRAS`, with EXTRAS such as "" or "[test]".

fail() { echo "error: $*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
            2>/dev/null && { echo "$candidate"; return; }
    done
    fail "Python 3.11 or 3.12 is needed, found $(python3 --version 2>/dev/null || echo none);" \
        "install one of them or set PYTHON=/path/to/python3.11"
}

require_disk() {
    local free_kib needed_kib=$(($1 * 1024 * 1024))
    free_kib=$(df -Pk . | awk 'NR==2 {print $4}')
    [ "$free_kib" -ge "$needed_kib" ] ||
        fail "$1 GiB of free disk are needed here, found $((free_kib / 1024 / 1024)) GiB"
}

install_vtr_jax() {
    local extras="$1" python stamp wanted
    wanted="$(cksum <setup.py) $extras"
    stamp=.venv/installed
    if [ -f "$stamp" ] && grep -qxF "$wanted" "$stamp" && [ -x .venv/bin/python ]; then
        echo "== using .venv"
        return
    fi
    require_disk 4
    python=$(find_python) || exit 1
    if [ ! -x .venv/bin/python ]; then
        echo "== making .venv with $("$python" --version)"
        "$python" -m venv .venv || fail "cannot make .venv (on Debian: apt-get install python3-venv)"
    fi
    echo "== installing vtr_jax$extras into .venv (about 2 GB, a few minutes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$extras" ||
        fail "installation failed; the lines above say why"
    echo "$wanted" >>"$stamp"
}
