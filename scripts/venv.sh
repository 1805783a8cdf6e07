# Sourced by the other scripts: `ensure_venv EXTRA` makes .venv and installs the package with an
# extra, again only when pyproject.toml has changed since.

ensure_venv() {
    local extra=$1 stamp=".venv/.installed-$1"
    if [[ ! -x .venv/bin/python ]]; then
        "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "xtoken_jax needs Python 3.11 or newer; set PYTHON to one" >&2
            exit 2
        }
        "${PYTHON:-python3}" -m venv .venv
    fi
    if [[ ! -f $stamp || pyproject.toml -nt $stamp ]]; then
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extra]"
        touch "$stamp"
    fi
}
