#!/usr/bin/env bash
# Forecasting, and what it is good for: bash recipes/forecast/run.sh CORPUS_DIR [SEED...]
# CORPUS_DIR is that of recipes/mini_librispeech. Stopped or killed, the same command goes on.
set -euo pipefail
corpus=$1
shift
data=data/forecast
results=recipes/forecast/results
mkdir -p "$results/errors"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

if [ ! -e $data/lexicon.txt ]; then
    bash recipes/mini_librispeech/prepare.sh "$corpus" $data
    awk 'NR % 8 < 3' $data/train-clean-5.jsonl > $data/train-2h.jsonl
    gzip -dc asr/pretrained/english/lexicon.txt.gz > $data/lexicon.txt
fi

asr train recipes/forecast/predict.toml --out exp/forecast --threads 1
python tools/forecast.py exp/forecast $data/dev-report.jsonl \
    --json $results/errors/forecast.dev-report.json -o $results/errors/forecast.png

for seed in "${@:-1}"; do
    suffix=
    [ "$seed" = 1 ] || suffix=-seed$seed
    for system in scratch foreseen; do
        initial=
        [ $system = scratch ] || initial=exp/forecast
        run=exp/$system-$seed
        asr train recipes/forecast/labelled.toml --out "$run" --threads 1 \
            --set training.seed="$seed" --set "training.initial=$initial"
        # Phones as they are heard, then words from the lexicon with the language model that ships.
        asr evaluate $data/dev-report.jsonl --model "$run" --json \
            > "$results/$system-phones$suffix.dev-report.json"
        asr evaluate $data/dev-report.jsonl --model "$run" --json --beam-size 64 --lm-weight 0.6 \
            --lm asr/pretrained/english/language-model.bin > "$results/$system$suffix.dev-report.json"
    done
done
python tools/results.py
