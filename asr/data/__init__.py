"""What a model is trained and measured on: utterances, and where they come from.

In: a corpus as it is published (`corpora`, one module a layout). Out: `Utterance`s in JSONL manifests
(`manifest`) and decoded samples on disk, one memory-mapped file for each manifest (`cache`).

Public face: `Utterance`, `read_manifest`, `write_manifest`, `check_manifests`; `corpora.prepare`;
`make_cached_reader`.
"""
