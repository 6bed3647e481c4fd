#!/usr/bin/env bash
# The English model and everything in its tables, from nothing:
#   bash recipes/english/run.sh CORPORA_DIR TEXT_DIR DICTIONARY [PEERS_PYTHON]
# CORPORA_DIR and TEXT_DIR: see README.md. DICTIONARY: CMUdict.
# PEERS_PYTHON: of an environment that has pocketsphinx; without it that row is left as it is.
# ENCODER=FOLDER in front: a Whisper model in CTranslate2's format, whose states the last run learns to predict;
# without it there is no such run.
# Stopped or killed, the same command goes on where it was.
set -euo pipefail
corpora=$1 text=$2 dictionary=$3 peers=${4:-}
data=data/english
results=recipes/english/results
mkdir -p "$results"

bash recipes/english/data.sh "$corpora" "$text" "$dictionary" $data

# Two processes of one thread each, because so small batches leave a second thread little to do.
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
for run in first blstm more; do
    torchrun --nproc-per-node 2 -m asr train recipes/english/$run.toml --out exp/english-$run --threads 1
done
last=more
if [ -n "${ENCODER:-}" ]; then
    asr teach $data/train.jsonl --encoder "$ENCODER" --out $data/states
    torchrun --nproc-per-node 2 -m asr train recipes/english/taught.toml --out exp/english-taught --threads 1
    last=taught
fi
unset OMP_NUM_THREADS

python tools/release.py exp/english-$last english --int8 --pack --lexicon $data/words.txt --lm $data/lm.bin
asr tune $data/dev-tune.jsonl --model asr/pretrained/english
asr tune $data/dev-tune.jsonl --model asr/pretrained/english --lm none
for set in dev-report cv-dev speechocean-dev cv24-dev telephone-dev; do
    asr evaluate $data/$set.jsonl --model english --json > $results/blstm.$set.json
    asr evaluate $data/$set.jsonl --model english --lm none --json > $results/blstm-no-lm.$set.json
    asr evaluate $data/$set.jsonl --model english --lm none --beam-size 1 --json > $results/blstm-phones.$set.json
    if [ -n "$peers" ]; then
        python tools/bench/peers.py $data/$set.jsonl --python "$peers" > $results/pocketsphinx.$set.json
    fi
done
python tools/shifts.py $data/dev-tune.jsonl
python tools/curve.py exp/english-$last -o $results/blstm
python tools/results.py
