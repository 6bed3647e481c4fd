#!/usr/bin/env bash
# Everything in the table of results, from nothing: bash recipes/mini_librispeech/run.sh [CORPUS_DIR]
# CORPUS_DIR is the folder that LibriSpeech/ is in; without it the corpus is fetched (0.7 GB).
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
corpus=${1:-data/corpora}
name=mini_librispeech
data=data/$name
results=recipes/$name/results
mkdir -p "$results"

if [ $# -eq 0 ]; then
    python tools/fetch.py train-clean-5 dev-clean --into "$corpus"
fi
if [ ! -e "$data/dev-report.jsonl" ]; then
    asr prepare librispeech "$corpus" --out "$data"
    # Ten speakers of dev-clean: five to choose weights by, five for the table.
    grep -E '"speaker": "(1272|1462|1673|174|1919)"' "$data/dev-clean.jsonl" > "$data/dev-tune.jsonl"
    grep -E '"speaker": "(1988|1993|2035|2078|2086)"' "$data/dev-clean.jsonl" > "$data/dev-report.jsonl"
fi

# Two processes of one thread each, because so small batches leave a second thread little to do.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
torchrun --nproc-per-node 2 -m asr train "recipes/$name/blstm.toml" --out "exp/$name" --threads 1
asr evaluate "$data/dev-report.jsonl" --model "exp/$name" --json > "$results/blstm.dev-report.json"
python tools/curve.py "exp/$name" -o "$results/blstm"
python tools/results.py
