#!/usr/bin/env bash
# Everything in the table of results, from nothing:
#   bash recipes/mini_librispeech/run.sh TEXT DICTIONARY [CORPUS_DIR]
# TEXT: sentences in letters-v1, one a line. DICTIONARY: CMUdict. CORPUS_DIR: the folder that LibriSpeech/ is
# in; without it that is fetched (0.7 GB). Stopped or killed, the same command goes on where it was.
set -euo pipefail
text=$1 dictionary=$2 corpus=${3:-data/corpora}
name=mini_librispeech
data=data/$name
results=recipes/$name/results
mkdir -p "$results"

if [ $# -eq 2 ]; then
    python tools/fetch.py train-clean-5 dev-clean --into "$corpus"
fi
if [ ! -e "$data/words.txt" ]; then
    bash recipes/$name/prepare.sh "$corpus" "$data"
    # Words that are only tested are in the lexicon, too, or their phones could not be counted.
    asr lexicon --words "$data/train-clean-5.jsonl" --words "$data/dev-clean.jsonl" \
        --dictionary "$dictionary" -o "$data/lexicon.txt"
    asr lm train "$text" -o $data/lm.bin --order 3 --prune 0 2 3
    # Words that can be found are those of the text, the dictionary and the training set: no others.
    grep -Eo "^[a-z']+ " "$dictionary" | tr -d ' ' > $data/dictionary-words.txt
    asr lexicon --words $data/lm.bin --words $data/dictionary-words.txt --words $data/train-clean-5.jsonl \
        --dictionary "$dictionary" -o $data/words.txt
fi

# Two processes of one thread each, because so small batches leave a second thread little to do.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
for run in first phones pieces; do
    torchrun --nproc-per-node 2 -m asr train recipes/$name/$run.toml --out exp/$name-$run --threads 1
done
unset OMP_NUM_THREADS

measured() { # RUN SYSTEM [OPTION...]
    asr evaluate "$data/dev-report.jsonl" --model "$1" "${@:3}" --json > "$results/$2.dev-report.json"
}
measured exp/$name-phones phones --lm none --beam-size 1
measured exp/$name-pieces pieces --lm none --beam-size 1
python tools/release.py exp/$name-phones exp/$name-words --lexicon $data/words.txt --lm $data/lm.bin
asr tune $data/dev-tune.jsonl --model exp/$name-words
measured exp/$name-words phones-lm
asr tune $data/dev-tune.jsonl --model exp/$name-pieces --lm $data/lm.bin
measured exp/$name-pieces pieces-lm
for run in first phones pieces; do
    python tools/curve.py exp/$name-$run -o $results/$run
done
python tools/results.py
