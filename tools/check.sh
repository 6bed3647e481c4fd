#!/usr/bin/env bash
# All checks, the same by hand and in CI: style, types, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff check .
ruff format --check .
mypy
pytest "$@"
