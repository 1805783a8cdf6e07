#!/usr/bin/env bash
# Formatter, linter, type checker, import contracts, spelling and tests, in a .venv that it makes.
# XTOKEN_REQUIRE_ASSETS=1 turns a missing asset from a skip into a failure.
# XTOKEN_REQUIRE_BROWSER=1 does so for Chromium, which the tests of the HTML pages drive.
# XTOKEN_TORCH=2.13.0 installs that PyTorch first, the reference of the parity tests.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
ensure_venv dev
if [[ -n ${XTOKEN_TORCH:-} ]] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "torch==$XTOKEN_TORCH"
fi
export PATH="$PWD/.venv/bin:$PATH"

ruff format --check .
ruff check .
pyright
lint-imports
typos
# Two processes, a file of tests to each at a time, so that fixtures of a file are made once.
# `scripts/test.sh -n 0` runs the tests in one.
pytest -n 2 --dist loadfile "$@"
