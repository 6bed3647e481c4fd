#!/usr/bin/env bash
# The comparison, from nothing: bash recipes/family/run.sh CORPUS_DIR [SEED...]
# Two to five minutes of one core for each network and seed; the convolutional LSTM takes far longer.
set -euo pipefail
corpus=$1
shift
results=recipes/family/results
mkdir -p "$results"

[ -e data/fsdd/train-connected.jsonl ] || asr prepare fsdd "$corpus" --out data/fsdd
awk 'NR % 4 == 1' data/fsdd/train-connected.jsonl > data/fsdd/train-quarter.jsonl
for seed in "${@:-1}"; do
    for recipe in recipes/family/*.toml; do
        name=$(basename "$recipe" .toml)
        run=exp/family-$name-$seed
        asr train "$recipe" --set training.seed="$seed" --out "$run" --threads 1
        result=$results/$name.test-connected.json
        [ "$seed" = 1 ] || result=$results/$name-seed$seed.test-connected.json
        asr evaluate data/fsdd/test-connected.jsonl --model "$run" --json > "$result"
    done
done
python tools/results.py
