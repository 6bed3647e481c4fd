#!/usr/bin/env bash
# All checks, the same by hand and in CI: style, types, documentation, tests. Arguments go to pytest.
# With --bounds first: only the tests of compiled code, compiled anew so that it checks every index.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --bounds ]; then
    NUMBA_CACHE_DIR="$(mktemp -d)"
    trap 'rm -rf "$NUMBA_CACHE_DIR"' EXIT
    export NUMBA_CACHE_DIR NUMBA_BOUNDSCHECK=1
    pytest tests/core tests/lm tests/g2p tests/search tests/model/test_tiled_lstm.py tests/training/test_crf.py "${@:2}"
    exit
fi

ruff check .
ruff format --check .
mypy
NO_MKDOCS_2_WARNING=1 mkdocs build --strict # into site/, which git ignores
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# A process a core, and one more because some tests wait for others to die; each takes a file of tests.
processes=$(python -c 'import os; print(1 + min(8, os.cpu_count() or 1))')
pytest --numprocesses "$processes" --dist loadfile --no-loadscope-reorder "$@"
