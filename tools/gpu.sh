#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run of at most nine minutes, for the day a machine with one is at hand.
#
#     tools/gpu.sh OUT                   # writes OUT/results.jsonl and OUT/tests.log, prints a table
#     tools/gpu.sh OUT --device cpu      # a dry run without a GPU: the same program, tiny and quick
#
# Each check writes its line as it ends, so that a run that is cut off keeps what it has. The exit status is 1
# where a check failed. Nothing is downloaded.
set -uo pipefail
cd "$(dirname "$0")/.."

out=${1:?a folder for the results}
shift
mkdir -p "$out"
export OMP_WAIT_POLICY=passive PYTHONPATH="$PWD"
seconds=540 tests=180
status=0
case " $* " in
*" --device cpu "*) ;; # tests marked gpu would skip
*)
    timeout "$tests" python -m pytest -q -m gpu tests > "$out/tests.log" 2>&1 || status=1
    tail -n 1 "$out/tests.log"
    ;;
esac
timeout $((seconds - SECONDS)) python tools/gpu.py --out "$out/results.jsonl" "$@" || status=1
exit "$status"
