#!/usr/bin/env bash
# Forecasting, and what it is good for: bash recipes/forecast/run.sh CORPUS_DIR [SEED...]
# CORPUS_DIR is that of recipes/fsdd. Stopped or killed, the same command goes on.
set -euo pipefail
corpus=$1
shift
results=recipes/forecast/results
mkdir -p "$results"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

[ -e data/fsdd/train-connected.jsonl ] || asr prepare fsdd "$corpus" --out data/fsdd
awk 'NR % 4 == 1' data/fsdd/train-connected.jsonl > data/fsdd/train-quarter.jsonl
cat data/fsdd/train.jsonl data/fsdd/train-quarter.jsonl | awk 'NR % 6 == 1' > data/fsdd/train-few.jsonl

asr train recipes/forecast/predict.toml --out exp/forecast --threads 1
python tools/forecast.py exp/forecast data/fsdd/test-connected.jsonl \
    --json $results/forecast.json -o docs/forecast.png

for seed in "${@:-1}"; do
    for system in few few-foreseen; do
        initial=
        [ $system = few ] || initial=exp/forecast
        run=exp/$system-$seed
        asr train recipes/forecast/few.toml --out "$run" --threads 1 \
            --set training.seed="$seed" --set "training.initial=$initial"
        suffix=
        [ "$seed" = 1 ] || suffix=-seed$seed
        asr evaluate data/fsdd/test-connected.jsonl --model "$run" --json \
            > "$results/$system$suffix.test-connected.json"
    done
done
python tools/results.py
