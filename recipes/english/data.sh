#!/usr/bin/env bash
# Manifests, language model and lexica, made once: bash recipes/english/data.sh CORPORA_DIR TEXT_DIR DICTIONARY OUT
# What the arguments are is told in run.sh.
set -euo pipefail
corpora=$1 text=$2 dictionary=$3 data=$4
if [ ! -e "$data"/words.txt ]; then
    python recipes/english/prepare.py "$corpora" --out "$data" --held-out "$text"/held-out.sha1
    # The speech that weights are chosen by is in the lexicon, or its phones could not be counted.
    asr lexicon --words "$data"/train.jsonl --words "$data"/dev-tune.jsonl --dictionary "$dictionary" -o "$data"/lexicon.txt
    python recipes/english/text.py "$text" --held-out "$text"/held-out.sha1 -o "$data"/text.txt
    asr lm train "$data"/text.txt "$data"/train.txt "$data"/train.txt -o "$data"/lm.bin --order 3 --prune 0 2 4
    # What can be found: the language model's words, and those that it lacks and the dictionary has.
    grep -Eo "^[a-z']+ " "$dictionary" | tr -d ' ' > "$data"/dictionary-words.txt
    asr lexicon --words "$data"/lm.bin --words "$data"/dictionary-words.txt --words "$data"/train.jsonl \
        --dictionary "$dictionary" -o "$data"/words.txt
fi
