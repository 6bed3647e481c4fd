#!/usr/bin/env bash
# All checks, the same by hand and in CI: style, types, documentation, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff check .
ruff format --check .
mypy
NO_MKDOCS_2_WARNING=1 mkdocs build --strict # into site/, which git ignores
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a process a core, each with a file of tests
pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
