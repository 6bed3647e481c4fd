#!/usr/bin/env bash
# Forecasting: bash recipes/forecast/run.sh CORPUS_DIR
# CORPUS_DIR is that of recipes/mini_librispeech. Stopped or killed, the same command goes on.
set -euo pipefail
corpus=$1
data=data/forecast
results=recipes/forecast/results/errors
mkdir -p "$results"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

[ -e $data/dev-report.jsonl ] || bash recipes/mini_librispeech/prepare.sh "$corpus" $data
asr train recipes/forecast/predict.toml --out exp/forecast --threads 1
python tools/forecast.py exp/forecast $data/dev-report.jsonl \
    --json $results/forecast.dev-report.json -o $results/forecast.png
python tools/results.py
