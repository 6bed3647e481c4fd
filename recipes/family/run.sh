#!/usr/bin/env bash
# The comparison, from nothing:
#   bash recipes/family/run.sh digits CORPUS_DIR [SEED...]
#   bash recipes/family/run.sh mini CORPUS_DIR TEXT DICTIONARY [SEED...]
# The folders and files are those of recipes/fsdd and of recipes/english.
# NETWORKS="rnn mini-lstm" in front of it: these alone. Stopped or killed, the same command goes on.
set -euo pipefail
part=$1 corpus=$2
shift 2
results=recipes/family/results
mkdir -p "$results"
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1

networks() { # the names of this part's TOMLs, the convolutional LSTM, which takes far longer, last
    for recipe in recipes/family/*.toml; do basename "$recipe" .toml; done |
        { if [ "$part" = mini ]; then grep '^mini-'; else grep -v '^mini-\|^convlstm$' && echo convlstm; fi; }
}

case $part in
digits)
    [ -e data/fsdd/train-connected.jsonl ] || asr prepare fsdd "$corpus" --out data/fsdd
    awk 'NR % 4 == 1' data/fsdd/train-connected.jsonl > data/fsdd/train-quarter.jsonl
    measured() { # RUN SYSTEM [SEED]: a model that spells searches as was best with the first seed; and CTC alone
        if grep -q 'kind = "attention"' "$1/config.toml"; then
            tuned=exp/family-search.toml
            [ -e $tuned ] || { asr tune data/fsdd/dev-connected.jsonl --model "$1" && cp "$1/search.toml" $tuned; }
            cp $tuned "$1/search.toml"
            asr evaluate data/fsdd/test-connected.jsonl --model "$1" --json --ctc-weight 1 > \
                "${2%-seed*}-ctc${3:+-seed$3}.test-connected.json"
        fi
        asr evaluate data/fsdd/test-connected.jsonl --model "$1" --json > "$2.test-connected.json"
    }
    ;;
mini)
    text=$1 dictionary=$2
    shift 2
    data=data/family
    if [ ! -e $data/lm.bin ]; then
        bash recipes/mini_librispeech/prepare.sh "$corpus" $data
        # Words to be found: those of the dictionary, and what training and validation need beside them.
        grep -Eo "^[a-z']+ " "$dictionary" | tr -d ' ' > $data/dictionary-words.txt
        asr lexicon --words $data/dictionary-words.txt --words $data/train-clean-5.jsonl \
            --words $data/dev-tune.jsonl --dictionary "$dictionary" -o $data/lexicon.txt
        asr lm train "$text" -o $data/lm.bin --order 3 --prune 0 2 3
    fi
    measured() { # RUN SYSTEM: phones as they are heard, then words from the lexicon
        asr evaluate $data/dev-report.jsonl --model "$1" --json > "$2.dev-report-phones.json"
        asr evaluate $data/dev-report.jsonl --model "$1" --json \
            --lm $data/lm.bin --beam-size 64 --lm-weight 0.6 > "$2.dev-report.json"
    }
    ;;
*)
    echo "run.sh: the first word is digits or mini, not '$part'" >&2
    exit 2
    ;;
esac

for seed in "${@:-1}"; do
    for name in ${NETWORKS:-$(networks)}; do
        run=exp/family-$name-$seed
        asr train "recipes/family/$name.toml" --set training.seed="$seed" --out "$run" --threads 1
        system=$results/$name
        other=
        [ "$seed" = 1 ] || other=$seed system=$system-seed$seed
        measured "$run" "$system" "$other"
    done
done
python tools/results.py
