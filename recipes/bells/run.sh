#!/usr/bin/env bash
# The table of the README, from nothing, in a few minutes: bash recipes/bells/run.sh [SEED...]
set -euo pipefail
data=data/bells
results=recipes/bells/results
mkdir -p "$results"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
[ -e $data/test.jsonl ] || python recipes/bells/prepare.py --out $data

[ $# -gt 0 ] || set -- 1 2 3
for seed in "$@"; do
    for cell in lstm gru rnn; do
        run=exp/bells-$cell-$seed system=$results/$cell
        [ "$seed" = 1 ] || system=$system-seed$seed
        asr train recipes/bells/lstm.toml --out "$run" --threads 1 \
            --set encoder.cell=$cell --set training.seed="$seed"
        asr evaluate $data/test.jsonl --model "$run" --json > "$system.test.json"
    done
done
python tools/results.py
