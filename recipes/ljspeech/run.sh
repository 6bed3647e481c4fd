#!/usr/bin/env bash
# From nothing to a word error rate: bash recipes/ljspeech/run.sh [CORPUS_DIR]
# CORPUS_DIR is the folder that holds metadata.csv; without it the corpus is fetched (2.7 GB).
set -euo pipefail
corpus=${1:-data/corpora/LJSpeech-1.1}
data=data/ljspeech
results=recipes/ljspeech/results
mkdir -p "$results"

if [ $# -eq 0 ]; then
    python tools/fetch.py LJSpeech-1.1 --into data/corpora
fi
asr prepare ljspeech "$corpus" --out "$data"
# The corpus has no split: of every twenty utterances one is for development and one for testing.
awk 'NR % 20 == 1' "$data/all.jsonl" > "$data/dev.jsonl"
awk 'NR % 20 == 11' "$data/all.jsonl" > "$data/test.jsonl"
awk 'NR % 10 != 1' "$data/all.jsonl" > "$data/train.jsonl"

export OMP_WAIT_POLICY=passive
asr train recipes/ljspeech/blstm.toml --out exp/ljspeech
asr evaluate "$data/test.jsonl" --model exp/ljspeech --json > "$results/blstm.test.json"
python tools/curve.py exp/ljspeech -o "$results/blstm"
python tools/results.py
