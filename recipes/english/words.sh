#!/usr/bin/env bash
# The recurrent language model and the model of punctuation that ship with `english`, after data.sh:
#   bash recipes/english/words.sh TEXT_DIR PROSE_SOURCES_DIR MODEL_FOLDER CORPORA_DIR
# TEXT_DIR and CORPORA_DIR are those of run.sh, PROSE_SOURCES_DIR that of prose.py. MODEL_FOLDER gets both files.
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
text=$1 sources=$2 model=$3 corpora=$4
data=data/english
results=recipes/english/results/words
mkdir -p "$results"

# One pass over a fifth of the sentences, in the order of data.sh's counts.
export OMP_NUM_THREADS=1
asr lm train "$data"/text.txt "$data"/train.txt "$data"/train.txt -o exp/english-lm.safetensors --kind lstm \
    --set network.pieces=4000 --set network.size=512 --set network.layers=1 --set training.epochs=0.204
asr tune "$data"/dev-tune.jsonl --model "$model" --rescore exp/english-lm.safetensors --rescore-only

python recipes/english/prose.py "$sources" -o data/prose --held-out "$text"/held-out.sha1
asr punctuation train data/prose/train.txt -o exp/punctuation.safetensors --set training.epochs=0.6 \
    --set training.warmup_steps=100
cp exp/punctuation.safetensors "$model"/punctuation.safetensors
# What pauses say, from recordings whose texts have their marks.
asr prepare ljspeech "$corpora"/LJSpeech-1.1 --out data/ljspeech
asr punctuation pauses data/ljspeech/all.jsonl "$corpora"/cv-delta-13/manifest.jsonl --model "$model"
for set in books modern; do
    asr punctuation score "$model"/punctuation.safetensors data/prose/$set.txt --json > "$results"/punctuation.$set.json
done
python recipes/english/readable.py "$data"/cv24-dev.jsonl --model "$model" -o "$results"
# My Antonia (Project Gutenberg 242), which some of dev-report was read from, as data/books/my-antonia.txt
if [ -e data/books/my-antonia.txt ]; then
    python recipes/english/readable.py "$data"/dev-report.jsonl --book data/books/my-antonia.txt --model "$model" -o "$results"
fi
