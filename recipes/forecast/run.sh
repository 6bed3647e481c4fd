#!/usr/bin/env bash
# Forecasting, and what it is worth where there are few texts:
#   bash recipes/forecast/run.sh CORPUS_DIR [TEXT DICTIONARY]
# All three as in recipes/mini_librispeech; without the last two nothing learns from texts. Stopped or killed, the
# same command goes on.
set -euo pipefail
corpus=$1 text=${2:-} dictionary=${3:-}
data=data/forecast
results=recipes/forecast/results
mkdir -p "$results/errors"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

[ -e $data/dev-report.jsonl ] || bash recipes/mini_librispeech/prepare.sh "$corpus" $data
asr train recipes/forecast/predict.toml --out exp/forecast --threads 1
python tools/forecast.py exp/forecast $data/dev-report.jsonl \
    --json $results/errors/forecast.dev-report.json -o $results/errors/forecast.png

if [ -n "$text" ]; then
    if [ ! -e $data/lm.bin ]; then
        awk 'NR % 8 < 3' $data/train-clean-5.jsonl > $data/train-2h.jsonl
        grep -Eo "^[a-z']+ " "$dictionary" | tr -d ' ' > $data/dictionary-words.txt
        asr lexicon --words $data/dictionary-words.txt --words $data/train-2h.jsonl \
            --words $data/dev-tune.jsonl --dictionary "$dictionary" -o $data/lexicon.txt
        asr lm train "$text" -o $data/lm.bin --order 3 --prune 0 2 3
    fi
    for name in from-nothing foresaw; do
        [ $name = foresaw ] && initial=exp/forecast || initial=
        asr train recipes/forecast/labels.toml --out exp/forecast-$name --threads 1 --set training.initial="$initial"
        asr evaluate $data/dev-report.jsonl --model exp/forecast-$name --json > $results/$name.dev-report-phones.json
        asr evaluate $data/dev-report.jsonl --model exp/forecast-$name --json \
            --lm $data/lm.bin --beam-size 64 --lm-weight 0.6 > $results/$name.dev-report.json
    done
fi
python tools/results.py
