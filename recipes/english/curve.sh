#!/usr/bin/env bash
# What more data is worth, and another seed: the network of the released model, from nothing, on 2, 5 and
# all 14 hours, each on a shortened schedule, one process of one thread:
#   bash recipes/english/curve.sh CORPORA_DIR TEXT DICTIONARY [POINT...]
# Arguments as for run.sh. POINTs: 2h 5h 14h 14h-seed2, all of them unless told. The same command again goes on.
set -euo pipefail
data=data/english
results=recipes/english/results
mkdir -p "$results"
bash recipes/english/data.sh "$1" "$2" "$3" $data
shift 3
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

[ $# -gt 0 ] || set -- 2h 5h 14h 14h-seed2
for point in "$@"; do
    seed=1
    case $point in # the less there is to hear, the more often
    2h) manifest=train-2h.jsonl epochs=15 ;;
    5h) manifest=train-5h.jsonl epochs=10 ;;
    14h) manifest=train.jsonl epochs=5 ;;
    14h-seed2) manifest=train.jsonl epochs=5 seed=2 ;;
    *)
        echo "curve.sh: $point is none of 2h 5h 14h 14h-seed2" >&2
        exit 2
        ;;
    esac
    run=exp/english-$point model=exp/english-$point-words
    asr train recipes/english/first.toml --out "$run" --threads 1 --set training.seed=$seed \
        --set "data.train=[\"$manifest\"]" --set training.epochs=$epochs
    python tools/release.py "$run" "$model" --lexicon $data/words.txt --lm $data/lm.bin
    cp asr/pretrained/english/search.toml "$model"/ # all search as the released model does
    asr evaluate $data/dev-report.jsonl --model "$model" --json > "$results/curve-$point.dev-report.json"
    # Phones are counted with the large lexicon, too: a word that a lexicon lacks is wrong whatever is heard.
    asr evaluate $data/dev-report.jsonl --model "$model" --lm none --beam-size 1 --json \
        > "$results/curve-$point-phones.dev-report.json"
done
python tools/results.py
