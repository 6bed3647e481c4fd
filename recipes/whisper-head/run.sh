#!/usr/bin/env bash
# A head on the states of Whisper's encoder, and its row in the table:
#   bash recipes/whisper-head/run.sh ENCODER DICTIONARY CORPUS_DIR
# ENCODER: the folder of a Whisper model (base) in CTranslate2's format. DICTIONARY: CMUdict. CORPUS_DIR: the folder
# that LibriSpeech/ (train-clean-5, dev-clean) is in. Stopped or killed, the same command goes on where it was.
set -euo pipefail
encoder=$1 dictionary=$2 corpus=$3
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
# Words are found with what the English model that ships knows of them.
python tools/release.py exp/whisper-head exp/whisper-head-words --lexicon "$english/lexicon.txt.gz" \
    --lm "$english/language-model.bin"
cp "$english/language-model.safetensors" exp/whisper-head-words
asr tune "$data/dev-tune.jsonl" --model exp/whisper-head-words
measured() { # MODEL SYSTEM [OPTION...]
    asr evaluate "$data/dev-report.jsonl" --model "$1" --threads 1 "${@:3}" --json > "$results/$2.dev-report.json"
}
measured exp/whisper-head-words head-phones --lm none --beam-size 1
measured exp/whisper-head-words head
python tools/results.py
