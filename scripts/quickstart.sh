#!/usr/bin/env bash
# Sets up .venv and runs the quickstart: a real distillation on two CPU cores.
# Run it again to go on from the last checkpoint; arguments go to `xtoken train`.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh
ensure_venv quickstart
exec .venv/bin/xtoken train configs/quickstart.yaml "$@"
