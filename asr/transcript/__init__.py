"""What a recogniser returns, and how it is written down.

In: words, times in seconds and confidences from the search. Out: `Word`, `Hypothesis`, `Segment`,
`Transcript` and `AlignedText` (`values`); txt, json, jsonl, srt, vtt, tsv, ctm and TextGrid (`formats`).

Public face: these values; `FORMATS` and `ALIGNMENT_FORMATS`, from a format's name to its function.
"""
