#!/usr/bin/env bash
# Fine-tuning on thirty minutes of one voice: bash recipes/voice/run.sh TEXT
set -euo pipefail
[ -d data/voice-recordings ] || python recipes/voice/prepare.py "$1" data/voice-recordings
asr prepare folder data/voice-recordings --out data/voice
results=recipes/voice/results
mkdir -p "$results"
asr evaluate data/voice/test.jsonl --model english --json > "$results/english.test.json"
asr train --from english --data data/voice --out exp/voice
asr evaluate data/voice/test.jsonl --model exp/voice --json > "$results/voice.test.json"
