#!/usr/bin/env bash
# All checks, the same by hand and in CI: style, types, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff check .
ruff format --check .
mypy
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a process a core, each with a file of tests
pytest --numprocesses auto --maxprocesses 8 --dist loadfile "$@"
