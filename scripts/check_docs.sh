#!/usr/bin/env bash
# Runs the commands that README and docs/ show; says which are not run, and why. See check_docs.py.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
ensure_venv dev
exec .venv/bin/python scripts/check_docs.py "$@"
