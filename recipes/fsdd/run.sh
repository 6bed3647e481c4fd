#!/usr/bin/env bash
# Everything in the table of results, from nothing: bash recipes/fsdd/run.sh CORPUS_DIR
# About six minutes for the model, and as much again for each of the six leave-one-speaker-out runs.
set -euo pipefail
corpus=$1
results=recipes/fsdd/results
mkdir -p "$results"

asr prepare fsdd "$corpus" --out data/fsdd
asr train recipes/fsdd/blstm.toml --out exp/fsdd --threads 1
python tools/release.py exp/fsdd digits # what ships is measured, float16 and all
for set in test test-connected; do
    asr evaluate "data/fsdd/$set.jsonl" --model digits --json > "$results/blstm.$set.json"
done

for folder in data/fsdd/without-*; do
    name=$(basename "$folder")
    asr train recipes/fsdd/blstm.toml --data "$folder" --out "exp/fsdd-$name" --threads 1
    for set in test test-connected; do
        asr evaluate "$folder/$set.jsonl" --model "exp/fsdd-$name" --json > "$results/blstm-$name.$set.json"
    done
done
python tools/results.py
