#!/usr/bin/env bash
# A head on the states of Whisper's encoder, and its row in the table:
#   bash recipes/whisper-head/run.sh ENCODER DICTIONARY CORPUS_DIR [ENGLISH]
# ENCODER: the folder of a Whisper model (base) in CTranslate2's format. DICTIONARY: CMUdict. CORPUS_DIR: the folder
# that LibriSpeech/ (train-clean-5, dev-clean) is in. ENGLISH: what recipes/english/data.sh has made, for a second head
# that learns from all of it. Stopped or killed, the same command goes on where it was.
set -euo pipefail
encoder=$1 dictionary=$2 corpus=$3 forty=${4:-}
data=data/whisper-head
results=recipes/whisper-head/results
english=$(python -c 'from asr.pretrained import find_model_folder; print(find_model_folder("english"))')
mkdir -p "$results"

if [ ! -e "$data/lexicon.txt" ]; then
    bash recipes/mini_librispeech/prepare.sh "$corpus" "$data"
    awk 'NR % 2' "$data/train-clean-5.jsonl" > "$data/train.jsonl" # every second utterance: 28 speakers, 2.7 hours
    asr lexicon --words "$data/train.jsonl" --words "$data/dev-tune.jsonl" --dictionary "$dictionary" \
        -o "$data/lexicon.txt"
fi

export OMP_WAIT_POLICY=passive
asr train recipes/whisper-head/head.toml --out exp/whisper-head --threads 1 --set features.encoder="$encoder"
release() { # RUN: words are found with what the English model that ships knows of them
    python tools/release.py "$1" "$1-words" --lexicon "$english/lexicon.txt.gz" --lm "$english/language-model.bin"
    cp "$english/language-model.safetensors" "$1-words"
    asr tune "$data/dev-tune.jsonl" --model "$1-words"
}
measured() { # MANIFEST MODEL SYSTEM [OPTION...]
    asr evaluate "$1" --model "$2" --threads 1 "${@:4}" --json > "$results/$3.$(basename "$1" .jsonl).json"
}
release exp/whisper-head
measured "$data/dev-report.jsonl" exp/whisper-head-words head-phones --lm none --beam-size 1
measured "$data/dev-report.jsonl" exp/whisper-head-words head

if [ -n "$forty" ]; then
    asr train recipes/whisper-head/forty-hours.toml --out exp/whisper-head-40h --threads 1 \
        --set features.encoder="$encoder" --set data.folder="$forty"
    release exp/whisper-head-40h
    measured "$forty/dev-report.jsonl" exp/whisper-head-40h-words head-40h-phones --lm none --beam-size 1
    for set in dev-report cv-dev speechocean-dev cv24-dev telephone-dev; do
        measured "$forty/$set.jsonl" exp/whisper-head-40h-words head-40h
    done
fi
python tools/results.py
