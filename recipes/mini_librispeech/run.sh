#!/usr/bin/env bash
# Everything in the table of results, from nothing:
#   bash recipes/mini_librispeech/run.sh DICTIONARY [CORPUS_DIR]
# DICTIONARY is CMUdict. CORPUS_DIR is the folder that LibriSpeech/ is in; without it that is fetched (0.7 GB).
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
dictionary=$1 corpus=${2:-data/corpora}
name=mini_librispeech
data=data/$name
results=recipes/$name/results
mkdir -p "$results"

if [ $# -eq 1 ]; then
    python tools/fetch.py train-clean-5 dev-clean --into "$corpus"
fi
if [ ! -e "$data/lexicon.txt" ]; then
    bash recipes/$name/prepare.sh "$corpus" "$data"
    # Words that are only tested are in the lexicon, too, or their phones could not be counted.
    asr lexicon --words "$data/train-clean-5.jsonl" --words "$data/dev-clean.jsonl" \
        --dictionary "$dictionary" -o "$data/lexicon.txt"
fi

# Two processes of one thread each, because so small batches leave a second thread little to do.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
for run in phones blstm; do
    out=exp/$name; [ $run = phones ] && out=exp/$name-phones
    torchrun --nproc-per-node 2 -m asr train "recipes/$name/$run.toml" --out "$out" --threads 1
done
asr evaluate "$data/dev-report.jsonl" --model "exp/$name" --json > "$results/blstm.dev-report.json"
asr evaluate "$data/dev-report.jsonl" --model "exp/$name-phones" --json > "$results/phones.dev-report.json"
python tools/curve.py "exp/$name" -o "$results/blstm"
python tools/results.py
