#!/usr/bin/env bash
# Options of features and training, each measured against one baseline: bash recipes/options/run.sh CORPUS_DIR
# About two minutes a run on one core. OPTIONS="mfcc stack" in front of it: these alone.
# Stopped or killed, the same command goes on.
set -euo pipefail
corpus=$1
results=recipes/options/results
mkdir -p "$results"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

[ -e data/fsdd/train-connected.jsonl ] || asr prepare fsdd "$corpus" --out data/fsdd
for name in ${OPTIONS:-baseline accumulate average mfcc speaker stack truncate}; do
    asr train "recipes/options/$name.toml" --out "exp/options-$name" --threads 1
    for set in test test-connected; do
        asr evaluate "data/fsdd/$set.jsonl" --model "exp/options-$name" --json > "$results/$name.$set.json"
    done
done
python tools/results.py
