#!/usr/bin/env bash
# Manifests of mini LibriSpeech: bash recipes/mini_librispeech/prepare.sh CORPUS_DIR OUT
# CORPUS_DIR is the folder that LibriSpeech/ is in.
set -euo pipefail
asr prepare librispeech "$1" --out "$2"
# Ten speakers of dev-clean: five to choose weights by, five for the table.
grep -E '"speaker": "(1272|1462|1673|174|1919)"' "$2/dev-clean.jsonl" > "$2/dev-tune.jsonl"
grep -E '"speaker": "(1988|1993|2035|2078|2086)"' "$2/dev-clean.jsonl" > "$2/dev-report.jsonl"
