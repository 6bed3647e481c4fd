"""Recordings by the million: a manifest in shards, each transcribed once, by many processes or machines.

In: a manifest (JSONL or Parquet, a path or a URL) and what a recogniser is opened with. Out: a folder with a
table of results for each shard, one of the recordings that cannot be read, and `plan.json`.

Public face: ``manifests`` (``plan_shards``), ``output`` (``claim_output``, ``list_finished``), ``work``
(``transcribe_shard``), ``batch_system`` (one process among several), ``on_ray`` (Ray Data).
"""
